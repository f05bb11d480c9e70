# No API server and no etcd for a minute. Sourced by `roll`.
# shellcheck shell=bash

no_api_server_for_a_minute() {
  local pid began=$SECONDS
  pid=$(agent_pid node node3)
  "$HERE/control-plane" stop >/dev/null 2>&1
  check "etcd, API server and controllers have ended" "$(! in_ns cp curl -sk -m 1 "https://$CP:6443/readyz"; echo $?)" "it answers"
  # An agent that starts meanwhile finds nobody to ask, and leaves what the kernel holds as it is.
  check "kill -9 of node3's node agent meanwhile" "$(kill -KILL "$pid"; echo $?)" "no process $pid"
  while [ $((SECONDS - began)) -lt 60 ]; do sleep 1; done
  steady_so_far "etcd and API server were away for 60 s"
  "$HERE/control-plane" start etcd kube-apiserver >/dev/null 2>&1
  eventually 60 "they are back" "^ok" kc get --raw /readyz
  # As where they are elected: without an API server they end, and are started again.
  "$HERE/control-plane" start kube-controller-manager kube-scheduler >/dev/null 2>&1
  succeed "nodes are Ready" kc wait --for=condition=Ready nodes --all --timeout=60s
  succeed "every pod of Fairlead is ready" all_rolled_out
  steady_so_far "etcd and API server came back"
  k scale deployment hello --replicas=4 >/dev/null
  succeed "scaled to 4" rolled_out deployment/hello
  eventually 10 "changes arrive again: a new pod answers" "^4" answering_now
  steady_so_far "scaled after the outage"
}
answering_now() {
  answering pod/client "http://$(k get service steady -o jsonpath='{.spec.clusterIP}')/hostname" 100 | wc -w
}

no_living_name_was_denied() {
  local log; log=$(report_of "pod, its DNS questions")
  expect "no question for a living name was answered NXDOMAIN or with nothing" "^0" \
    jq -n '[inputs] | last | (.failures.nxdomain // 0) + (.failures.nodata // 0)' "$log"
}
