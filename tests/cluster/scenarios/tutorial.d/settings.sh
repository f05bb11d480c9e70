# A ConfigMap of ours is changed, and running pods take it up. Sourced by `tutorial`.
# shellcheck shell=bash

# Another server of the outside world, which knows names that the usual one denies.
begin_another_upstream() {
  cat >"$WORK/another.Corefile" <<COREFILE
.:53 {
    bind $ANOTHER_DNS
    template IN A {
        answer "{{ .Name }} 60 IN A 203.0.113.77"
    }
}
COREFILE
  ip -n "${NS_PREFIX}ext" addr add "$ANOTHER_DNS/24" dev eth0
  spawn another-upstream ext coredns -conf "$WORK/another.Corefile"
}
end_another_upstream() {
  end another-upstream
  ip -n "${NS_PREFIX}ext" addr del "$ANOTHER_DNS/24" dev eth0 2>/dev/null
}
ANOTHER_DNS=203.0.113.54

new_name() { # a name outside that nobody has asked for before, so that no cache knows it
  (at pod/client getent ahostsv4 "n$RANDOM$RANDOM.elsewhere.test") | awk 'NR == 1 {print $1} END {if (!NR) print "none"}'
}
set_dns() { # YAML: as the agents' configuration file
  kc -n kube-system patch configmap fairlead --type=merge -p "$(jq -n --arg yaml "$1" '{data: {"dns.yaml": $yaml}}')"
}
dns_pods() { kc -n kube-system get pods -l app.kubernetes.io/component=dns -o json |
  jq -r '[.items[] | "\(.metadata.name) \(.status.containerStatuses[0].restartCount)"] | sort | join(", ")'; }

settings_are_picked_up() {
  local pods before
  pods=$(dns_pods)
  before=$(kc -n kube-system get configmap fairlead -o jsonpath='{.data.dns\.yaml}')
  begin_another_upstream
  expect "a name that the outside does not know" "^none" new_name
  succeed "our ConfigMap names another upstream" set_dns "upstream: [$ANOTHER_DNS]"
  # Kubelets bring a changed ConfigMap to its pods within their syncFrequency and a cache's lifetime.
  eventually 120 "and it is asked" "^203.0.113.77" new_name
  succeed "the ConfigMap is as it was" set_dns "$before"
  eventually 120 "and so is what is asked" "^none" new_name
  expect "no pod was restarted for it" "^$pods\$" dns_pods
  end_another_upstream
  steady_so_far "our settings changed"
}
