# The cluster as it is before Fairlead, and how it is put back. Sourced by `takeover`.
# shellcheck shell=bash
KUBE_PROXY_IMAGE=registry.k8s.io/kube-proxy:test

kube_proxy_image() { # the program on the base system of the other images: with nft, iptables, conntrack
  local base tar=$WORK/kube-proxy.tar d=$WORK/kube-proxy
  "$HERE/build" kube-proxy >/dev/null || die "kube-proxy could not be built"
  base=$(ls "$CLUSTER_ROOT"/image-parts/base-*.tar)
  mkdir -p "$d/usr/local/bin"
  cp "$BIN/kube-proxy" "$d/usr/local/bin/"
  "$HERE/mkimage.py" -o "$tar" --name "$KUBE_PROXY_IMAGE" --layer "$base" --layer "$d" \
    --entrypoint /usr/local/bin/kube-proxy || die "no image of kube-proxy"
  "$HERE/load-image" "$tar" >/dev/null || die "no image of kube-proxy on the nodes"
  rm -rf "$tar" "$d"
}
no_fairlead() {
  local n
  in_ns cp helm uninstall fairlead --namespace "$SYSTEM" --ignore-not-found --wait >/dev/null 2>&1
  # Of a run that was cut short.
  s delete daemonset kube-proxy-cleanup fairlead-cleanup --ignore-not-found --wait >/dev/null
  for n in $(node_names); do in_node "$n" "$FAIRLEAD" cleanup || die "Fairlead's programs stay on $n"; done
}
kube_proxy_manifest() { # MODE
  sed "s|@MODE@|$1|; s|@IMAGE@|$KUBE_PROXY_IMAGE|; s|@CP@|$CP|; s|@POD_CIDRS@|$POD_CIDR4,$POD_CIDR6|" \
    "$SCENARIOS/manifests/kube-proxy.yaml"
}
kube_proxy_and_coredns() { # MODE
  sed "s|@CG2@|$CG2|; s|@NS_PREFIX@|$NS_PREFIX|" "$HERE/values.yaml" >"$RUN/values.yaml"
  no_fairlead
  s get daemonset kube-proxy >/dev/null 2>&1 || kube_proxy_image
  kube_proxy_manifest "$1" | kc apply -f - >/dev/null
  succeed "kube-proxy runs in $1 mode" s rollout status daemonset/kube-proxy --timeout=180s
  "$HERE/dns" start
  s scale deployment coredns --replicas=2 >/dev/null
  succeed "CoreDNS answers" s rollout status deployment/coredns --timeout=60s
}
put_back() { # Fairlead alone again, as `deploy` leaves it
  local n
  steady_end >/dev/null 2>&1
  "$HERE/dns" stop
  kube_proxy_manifest nftables | kc delete --ignore-not-found --wait -f - >/dev/null
  s delete daemonset kube-proxy-cleanup fairlead-cleanup --ignore-not-found >/dev/null
  for n in $(node_names); do in_node "$n" kube-proxy --cleanup >/dev/null 2>&1; done
  if [ -f "${IMAGE:-$REPO/target/image/fairlead.tar}" ]; then
    "$HERE/deploy" --take-ownership >/dev/null || note "Fairlead could not be deployed again"
  fi
}

kube_proxy_rules() { # NODE: how many
  in_node "$1" sh -c 'nft list ruleset; iptables-save; ip6tables-save' 2>/dev/null | grep -cE 'table .* kube-proxy|KUBE-SVC|KUBE-SEP'
}
fairlead_on() { # NODE: what it has pinned there
  in_node "$1" sh -c 'ls -d /sys/fs/bpf/fairlead 2>/dev/null'
}
names_answered_by() {
  kc get pods -A -l k8s-app=kube-dns -o json |
    jq -r '[.items[].metadata.labels["app.kubernetes.io/name"] // "another"] | unique | join(" ")'
}
balanced_on() { # NODE: the Services in its kernel maps
  in_node "$1" "$FAIRLEAD" dump 2>&1
}
node_port() { k get service steady -o jsonpath='{.spec.ports[0].nodePort}'; }

# Open connections are to see no pod end, so changes are made to another application than theirs.
a_late_comer() {
  k create deployment late --image="$AGNHOST_NEW" -- /agnhost netexec >/dev/null
  k patch deployment late -p "$decent" >/dev/null
  k expose deployment late --port=80 --target-port=8080 >/dev/null
  succeed "an application comes" rolled_out deployment/late
  eventually 10 "and is called by name" "^late-" fetch pod/client http://late/hostname
}
late_answers() {
  answering pod/client "http://$(k get service late -o jsonpath='{.spec.clusterIP}')/hostname" 100 | wc -w
}
