# What scenarios are written with: checks, steady traffic, places to act from. Sourced by each of them.
# shellcheck shell=bash
SCENARIOS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=../lib.sh
. "$SCENARIOS/../lib.sh"
: "${FAIRLEAD:=$REPO/target/image/fairlead}" # what the image holds; its `world load` makes the traffic
MARK=fairlead.io/scenario # the label of scenarios' namespaces
AGNHOST=registry.k8s.io/e2e-test-images/agnhost
AGNHOST_OLD=$AGNHOST:2.55 AGNHOST_NEW=$AGNHOST:2.66.1 # tell apart: /image-tag

# --- beginning and end ------------------------------------------------------------------------
begin() { # NAME: a namespace of that name, and everything put back at the end
  NS=$1
  [ -f "$RUN/up" ] || die "the cluster is down: tests/cluster/up"
  [ -x "$FAIRLEAD" ] || die "no $FAIRLEAD: make image"
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/fairlead-$NS.XXXXXX")
  # A copy, since an image may be made anew meanwhile.
  cp "$FAIRLEAD" "$WORK/fairlead"
  FAIRLEAD=$WORK/fairlead
  FAILED=0
  trap finish EXIT
  trap 'exit 130' INT TERM
  # An earlier scenario's Ingress would still answer for the same host name.
  kc delete namespace -l "$MARK" --wait >/dev/null 2>&1
  kc create namespace "$NS" >/dev/null && kc label namespace "$NS" "$MARK=" >/dev/null || die "no namespace $NS"
  wait_for 20 "the default service account" k get serviceaccount default
}
finish() {
  local status=$? name
  trap - EXIT
  for name in "${!LOADS[@]}"; do kill "${LOADS[$name]}" 2>/dev/null; done
  if declare -F put_back >/dev/null; then put_back; fi
  if [ -n "${KEEP:-}" ]; then
    note "the namespace $NS is left (KEEP)"
  else
    kc delete namespace "$NS" --ignore-not-found --wait=false >/dev/null 2>&1
  fi
  if [ "$FAILED" = 0 ] && [ $status = 0 ]; then rm -rf "$WORK"; else note "traffic reports: $WORK"; fi
  [ "$FAILED" = 0 ] || status=1
  exit $status
}

# --- places -----------------------------------------------------------------------------------
k() { kc -n "$NS" "$@"; }
in_pod() { local pod=$1; shift; k exec "$pod" -- "$@"; } # POD CMD...

# at PLACE CMD...: CMD in the network namespace and cgroup of a place: ext, cp, nodeN, or pod/NAME, where
# names are resolved as the pod does. Unlike kubectl exec it needs no API server while it runs. It
# replaces the (sub)shell it is called in.
declare -A POD_PID=()
at() {
  local place=$1 pid group resolv; shift
  case $place in
  ext | cp) exec nsenter --net="$(ns "$place")" -- "$@" ;;
  node*)
    echo "$BASHPID" >"$(node_cgroup "$place")/daemons/cgroup.procs"
    exec nsenter --net="$(ns "$place")" -- "$@" ;;
  pod/*)
    pid=${POD_PID[$place]:-}
    [ -n "$pid" ] || die "enter $place first"
    group=$CG2$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    resolv=$(readlink -f /etc/resolv.conf)
    echo "$BASHPID" >"$group/cgroup.procs"
    # shellcheck disable=SC2016
    exec nsenter --net="/proc/$pid/ns/net" -- unshare --mount --propagation private \
      bash -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$WORK/resolv-$pid" "$resolv" "$@" ;;
  *) die "no such place: $place" ;;
  esac
}
enter() { # POD: makes pod/POD a place
  local uid node pid
  read -r uid node < <(k get pod "$1" -o jsonpath='{.metadata.uid} {.spec.nodeName}')
  [ -n "$uid" ] || die "there is no pod $1"
  while read -r pid; do
    [ "$(cat "/proc/$pid/comm")" != pause ] || continue
    POD_PID[pod/$1]=$pid
    # A file of another mount namespace cannot be bound; a copy can.
    cat "/proc/$pid/root/etc/resolv.conf" >"$WORK/resolv-$pid"
    return
  done < <(find "$(node_cgroup "$node")" -path "*pod$uid*" -name cgroup.procs -exec cat {} +)
  die "no process of pod $1 on $node"
}
client_pod() { # NAME NODE: a pod to call from, known as pod/NAME
  k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  nodeName: $2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "$AGNHOST_NEW", args: [pause]}
YAML
  k wait --for=condition=Ready "pod/$1" --timeout=60s >/dev/null || die "the client pod is not ready"
  enter "$1"
}

# --- checks -----------------------------------------------------------------------------------
ok() { echo "ok - $*"; }
not_ok() { FAILED=$((FAILED + 1)); echo "not ok - $1: $(tr '\n' ' ' <<<"$2" | cut -c1-600)"; } # WHAT WHY
check() { # WHAT STATUS WHY
  if [ "$2" = 0 ]; then ok "$1"; else not_ok "$1" "$3"; fi
}
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
seconds() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); } # MILLISECONDS

expect() { # WHAT REGEX CMD...: at the first attempt
  local what=$1 want=$2 got; shift 2
  got=$("$@" 2>&1)
  if [[ $got =~ $want ]]; then ok "$what"; else not_ok "$what" "wanted $want, got: $got"; fi
}
succeed() { # WHAT CMD...: a command a person would type; its words only when it fails
  local what=$1 got; shift
  got=$("$@" 2>&1)
  check "$what" $? "$got"
}
# eventually SECONDS WHAT REGEX CMD...: tried until its output fits; says how long that took.
eventually() {
  local limit=$(($1 * 1000)) what=$2 want=$3 got began; shift 3
  began=$(now_ms)
  while :; do
    got=$("$@" 2>&1)
    if [[ $got =~ $want ]]; then
      ok "$what (after $(seconds $(($(now_ms) - began))))"
      return
    fi
    [ $(($(now_ms) - began)) -lt $limit ] || break
    sleep 0.05
  done
  not_ok "$what" "not within $(seconds $limit); wanted $want, got: $got"
  return 1
}

fetch() { # PLACE URL [CURL-ARGS...]: one attempt
  local place=$1 url=$2; shift 2
  (at "$place" curl -sS -m 3 "$@" "$url")
}
# refused PLACE ADDRESS PORT: one TCP connection; says what became of it and after how many ms.
refused() {
  # shellcheck disable=SC2016
  (at "$1" timeout 3 bash -c '
    began=${EPOCHREALTIME/./}
    word=$( (exec 3<>"/dev/tcp/$0/$1") 2>&1)
    case $? in 0) word=connected ;; *) word=${word##*: } ;; esac
    echo "$word after $(((${EPOCHREALTIME/./} - began) / 1000)) ms"' "$2" "$3" || echo "nothing for 3 s") |
    head -n 1
}
# refused_at_once WHAT PLACE ADDRESS PORT: within a second from now, and never by waiting.
refused_at_once() {
  local began word
  began=$(now_ms)
  while :; do
    word=$(refused "$2" "$3" "$4")
    [ $(($(now_ms) - began)) -lt 1000 ] || break
    case $word in "Connection refused"*)
      ok "$1 ($(seconds $(($(now_ms) - began))))"
      return ;;
    esac
  done
  not_ok "$1" "$word, $(seconds $(($(now_ms) - began))) after it was asked for"
}
# answering PLACE URL [N]: the host names that answer N connections (60), sorted.
answering() {
  (at "$1" "$FAIRLEAD" world load --url "$2" --count "${3:-60}" --rate 300) | tail -n 1 |
    jq -r '.pods | keys | join(" ")'
}
pods_of() { # LABELS: names of running pods that are not ending, sorted like `answering`
  k get pods -l "$1" -o json | jq -r '[.items[] | select(.metadata.deletionTimestamp == null)
    | .metadata.name] | sort | join(" ")'
}

# --- steady traffic ---------------------------------------------------------------------------
declare -A LOADS=() SEEN_OK=() SEEN_BAD=()
report_of() { echo "$WORK/${1//[^A-Za-z0-9]/-}.json"; } # NAME
# steady NAME PLACE ARGS...: requests from now until `steady_end`, a connection each, or --streams.
steady() {
  local name=$1 place=$2 log; shift 2
  log=$(report_of "$name")
  (at "$place" "$FAIRLEAD" world load --seconds 7200 --wait-ms 15000 "$@") >"$log" 2>"$log.err" </dev/null &
  LOADS[$name]=$! SEEN_OK[$name]=0 SEEN_BAD[$name]=0
  for _ in $(seq 100); do
    [ ! -s "$log" ] || return 0
    sleep 0.2
  done
  not_ok "steady traffic begins: $name" "$(cat "$log.err")"
  unset "LOADS[$name]"
}
# What a report adds to the last one looked at: OK BAD WHY.
news_of() { # NAME
  tail -n 1 "$(report_of "$1")" | jq -r --argjson ok "${SEEN_OK[$1]}" --argjson bad "${SEEN_BAD[$1]}" '
    [.ok - $ok, .failed - $bad,
     ((.described[$bad:][:3] | map("\(.kind) (\(.detail)) after \(.after_us / 1000 | floor) ms")
        | join("; ")) + " \(.failures | tostring)")] | @tsv'
}
next_reports() { # of everyone, begun after now
  local name log; local -A lines=()
  for name in "${!LOADS[@]}"; do lines[$name]=$(wc -l <"$(report_of "$name")"); done
  for name in "${!LOADS[@]}"; do
    log=$(report_of "$name")
    for _ in $(seq 60); do
      [ "$(wc -l <"$log")" -lt $((${lines[$name]} + 2)) ] || break
      sleep 0.1
    done
  done
}
# steady_so_far WHAT: whether any request failed since the last look. One line for all ways.
steady_so_far() {
  local name good bad why sum=0 lost=0 whys=
  next_reports
  for name in "${!LOADS[@]}"; do
    IFS=$'\t' read -r good bad why < <(news_of "$name")
    SEEN_OK[$name]=$((${SEEN_OK[$name]} + good)) SEEN_BAD[$name]=$((${SEEN_BAD[$name]} + bad))
    sum=$((sum + good + bad)) lost=$((lost + bad))
    [ "$bad" = 0 ] || whys+="$name: $bad of $((good + bad)): $why. "
    [ "$good" -gt 0 ] || [ "$bad" -gt 0 ] || whys+="$name: no requests. "
  done
  if [ -z "$whys" ]; then
    ok "$1: 0 of $sum requests failed"
  else
    not_ok "$1: 0 requests failed" "$lost of $sum failed: $whys"
  fi
}
# steady_forget_way NAME WHAT: what failed on that way since the last look was meant to; it is said, not judged.
steady_forget_way() {
  local good bad why
  [ -n "${LOADS[$1]:-}" ] || return 0
  next_reports
  IFS=$'\t' read -r good bad why < <(news_of "$1")
  SEEN_OK[$1]=$((${SEEN_OK[$1]} + good)) SEEN_BAD[$1]=$((${SEEN_BAD[$1]} + bad))
  note "$2: $bad of $((good + bad)) failed: $why"
}
steady_end() { # every way ends, and its whole time is told
  local name line
  [ ${#LOADS[@]} -gt 0 ] || return 0
  for name in "${!LOADS[@]}"; do kill -TERM "${LOADS[$name]}" 2>/dev/null; done
  while read -r name; do
    wait "${LOADS[$name]}" 2>/dev/null
    line=$(tail -n 1 "$(report_of "$name")" | jq -r 'if .done then
      "\(.ok + .failed) requests, \(.failed) failed, p50 \(.latency_us.p50 / 1000) ms, p99 \(.latency_us.p99 / 1000) ms, longest \(.latency_us.max / 1000) ms"
      else "ended early" end')
    note "  $name: $line"
  done < <(printf '%s\n' "${!LOADS[@]}" | sort)
  LOADS=()
}
