# A node is emptied for maintenance and comes back; and what becomes of an application that takes no care. Sourced by `tutorial`.
# shellcheck shell=bash

on_node() { # NODE LABELS: pods
  k get pods -l "$2" --field-selector "spec.nodeName=$1" -o json | jq '[.items[]
    | select(.metadata.deletionTimestamp == null)] | length'
}
drain_a_node() {
  local n=node3
  k scale deployment hello --replicas=4 >/dev/null
  rolled_out deployment/hello >/dev/null
  k create poddisruptionbudget hello --selector=app=hello --min-available=3 >/dev/null
  succeed "kubectl drain $n, within a PodDisruptionBudget" \
    kc drain $n --ignore-daemonsets --delete-emptydir-data --timeout=120s
  expect "no pod of hello is left on $n" "^0" on_node $n app=hello
  eventually 2 "only 4 others answer" "^all 4" all_answer 4
  expect "the drained node's NodePort answers" "^hello-" fetch ext "http://$(node_ip4 $n):$NODE_PORT/hostname"
  expect "the drained node's Ingress answers" "^hello-" https ext $n /hostname
  steady_so_far "$n was drained"
  succeed "kubectl uncordon $n" kc uncordon $n
  k delete pod "$(k get pods -l app=hello -o jsonpath='{.items[0].metadata.name}')" --wait=false >/dev/null
  eventually 30 "pods come to $n again, and answer" "^all 4" all_answer 4
  steady_so_far "$n came back"
}
put_back() {
  kc uncordon node3 >/dev/null 2>&1
  end_another_upstream
}

# No readiness probe, and an end without delay: connections meet pods that are not there yet, or no more.
# That is the application's doing; kube-proxy loses as many. It is told, not judged.
a_naive_app() {
  local ip report=$WORK/naive.json
  k create deployment naive --image="$AGNHOST_NEW" --replicas=3 -- /agnhost netexec --http-port=8080 >/dev/null
  rolled_out deployment/naive >/dev/null
  k expose deployment/naive --port=80 --target-port=8080 >/dev/null
  ip=$(k get service naive -o jsonpath='{.spec.clusterIP}')
  (at pod/client "$FAIRLEAD" world load --wait-ms 5000 --url "http://$ip/hostname" --seconds 20 --rate 50) >"$report" &
  k rollout restart deployment/naive >/dev/null
  rolled_out deployment/naive >/dev/null
  wait $!
  note "an application without probe and delay, rolled over: $(tail -n 1 "$report" |
    jq -r '"\(.failed) of \(.ok + .failed) requests failed \(.failures | tostring)"')"
}
