#!/usr/bin/env bash
# `make test-arm64`: what is in the arm64 image, run by an emulator: what the quick start shows, DNS, Ingress with TLS, and a clean
# end. Emulators have no bpf(2), so Services are not in it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" != inside ]; then
  # A network of its own, whose addresses and ports are all free.
  exec unshare --map-root-user --net "$0" inside
fi
. tools/release.sh
binary=target/image/fairlead-$ARCH
run() { "qemu-${RELEASE_TARGET%%-*}-static" "$binary" "$@"; }
die() { echo "emulated: $*" >&2; exit 1; }
room=$(mktemp -d)
agent=
pod=
trap 'kill $agent $pod 2>/dev/null || true; wait; rm -rf "$room"' EXIT

tar -xOf "$binary.tar" index.json >"$room/index.json"
grep -qF "\"platform\":{\"architecture\":\"$ARCH\",\"os\":\"linux\"}" "$room/index.json" || die "$binary.tar is not for linux/$ARCH"
echo "emulated: $(run version), linux/$ARCH"

# What the page shows is what this machine's binary prints (tests/it/docs).
awk -v room="$room" '
  /^```/ { name = "" }
  name   { print > name }
  /^```console/ { name = room "/" ++count ".console" }' docs/quickstart.md
shown=0
for block in "$room"/*.console; do
  read -r prompt program words <"$block"
  [ "$prompt $program" = "\$ fairlead" ] || die "a block begins with: $prompt $program"
  case $words in *' -f '*) ;; *) continue ;; esac
  # shellcheck disable=SC2086
  run $words >"$room/printed" || [ $? = 1 ] || die "fairlead $words does not run"
  diff -u --label "docs/quickstart.md" <(tail -n +2 "$block") --label "$ARCH" "$room/printed" >&2 ||
    die "fairlead $words prints something else"
  shown=$((shown + 1))
done
[ "$shown" -ge 3 ] || die "the quick start shows $shown commands"

ip link set lo up
# One pod is all that the Service has.
for endpoint in 10.244.1.5 10.244.2.5; do ip address add "$endpoint/32" dev lo; done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop.example \
  -addext subjectAltName=DNS:shop.example -addext basicConstraints=critical,CA:FALSE \
  -keyout "$room/key.pem" -out "$room/cert.pem" 2>"$room/openssl" || die "$(cat "$room/openssl")"
mkdir "$room/manifests"
# The quick start's shop, with TLS.
sed 's/^  ingressClassName: fairlead$/&\n  tls: [{hosts: [shop.example], secretName: tls}]/' docs/examples/shop.yaml \
  >"$room/manifests/shop.yaml"
cat >"$room/manifests/tls.yaml" <<YAML
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: shop}
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w 0 "$room/cert.pem")
  tls.key: $(base64 -w 0 "$room/key.pem")
YAML
# The emulator itself, not a shell around it: it is told to end.
run_in_background() { exec "qemu-${RELEASE_TARGET%%-*}-static" "$binary" "$@"; }
run_in_background world pod --name web-a --quiet-ms 0 >"$room/pod.log" 2>&1 &
pod=$!
run_in_background agent --no-proxy --node-name node1 --manifests "$room/manifests" --upstream 127.0.0.1:5353 \
  --admin-socket "$room/admin.sock" >"$room/agent.log" 2>&1 &
agent=$!

answered() { # WHAT LOAD-ARGUMENTS...
  local what=$1 report
  shift
  report=$(run world load --wait-ms 60000 "$@" | tail -n 1) || true
  [[ $report =~ '"ok":'([1-9][0-9]*)',"failed":0,"broken":0,' ]] || die "$what: $report"$'\n'"$(cat "$room/agent.log")"
  echo "emulated: $what: ${BASH_REMATCH[1]} answered, none failed"
}
https=(--url https://shop.example/ --to 127.0.0.1:443 --ca "$room/cert.pem")
answered "names" --url dns://127.0.0.1/web.shop.svc.cluster.local --count 20
answered "HTTPS through Ingress" "${https[@]}" --count 20
answered "connections that stay open" "${https[@]}" --streams 4 --seconds 2
run status --admin-socket "$room/admin.sock" >"$room/status" || die "status: $(cat "$room/status")"

kill -TERM "$agent"
status=0
wait "$agent" || status=$?
agent=
[ "$status" = 0 ] || die "the agent ended with $status:"$'\n'"$(cat "$room/agent.log")"
! grep ' ERROR ' "$room/agent.log" || die "the agent failed at something"
echo "emulated: linux/$ARCH works, as far as an emulator goes"
