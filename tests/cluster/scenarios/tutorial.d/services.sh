# A Deployment, its Service, and the traffic that is to suffer nothing. Sourced by `tutorial`.
# shellcheck shell=bash

no_kube_proxy_no_coredns() {
  local n
  for n in $(node_names); do
    expect "no kube-proxy on $n, nor rules of its" "^\$" kube_proxy_on "$n"
  done
  expect "no CoreDNS, and nobody answers names but Fairlead" "^fairlead *\$" names_answered_by
}
kube_proxy_on() { # NODE
  in_node "$1" sh -c 'pgrep -x kube-proxy; nft list tables | grep kube-proxy; iptables-save | grep KUBE-SVC' 2>/dev/null
}
names_answered_by() {
  kc get pods -A -l k8s-app=kube-dns -o json |
    jq -r '[.items[].metadata.labels["app.kubernetes.io/name"] // "another"] | unique | join(" ")'
}

create_a_deployment() {
  client_pod client node1
  succeed "kubectl create deployment" k create deployment hello --image="$AGNHOST_NEW" --replicas=3 \
    -- /agnhost netexec
  k patch deployment hello -p "$decent" >/dev/null
  succeed "3 pods of it get ready" rolled_out deployment/hello
}

expose_it() {
  expose
  IP=$(k get service hello -o jsonpath='{.spec.clusterIP}')
  hello_answers
  succeed "the Service becomes dual-stack" k patch service hello -p '{"spec": {"ipFamilyPolicy": "PreferDualStack"}}'
  IP6=$(k get service hello -o jsonpath='{.spec.clusterIPs[1]}')
  eventually 2 "pod -> ClusterIP, IPv6" "^hello-" fetch pod/client "http://[$IP6]/hostname"
  eventually 2 "outside -> NodePort, IPv6" "^hello-" fetch ext "http://[$(node_ip6 node2)]:$NODE_PORT/hostname"
  eventually 2 "on node1: curl [::1]:\$NODE_PORT" "^hello-" fetch node1 "http://[::1]:$NODE_PORT/hostname"
}
expose() {
  succeed "kubectl expose deployment/hello --type=NodePort" \
    k expose deployment/hello --type=NodePort --port=80 --target-port=8080
  NODE_PORT=$(k get service hello -o jsonpath='{.spec.ports[0].nodePort}')
}
hello_answers() {
  local n
  eventually 2 "pod -> http://hello, by name" "^hello-" fetch pod/client http://hello/hostname
  expect "another namespace's way: hello.$NS.svc.cluster.local" "^hello-" \
    fetch pod/client "http://hello.$NS.svc.cluster.local/hostname"
  expect "there is no hello in other namespaces" "Could not resolve host" fetch pod/client http://hello.default/hostname
  expect "kubectl exec client -- curl http://hello" "^hello-" in_pod client curl -sS -m 3 http://hello/hostname
  expect "pod -> NodePort of a node" "^hello-" fetch pod/client "http://$(node_ip4 node3):$NODE_PORT/hostname"
  for n in $(node_names); do
    eventually 2 "outside -> $n:\$NODE_PORT" "^hello-" fetch ext "http://$(node_ip4 "$n"):$NODE_PORT/hostname"
    # The classic tutorial's own command.
    expect "on $n: curl localhost:\$NODE_PORT" "^hello-" fetch "$n" "http://localhost:$NODE_PORT/hostname"
  done
}

kubectl_reaches_pods() {
  local pod; pod=$(k get pods -l app=hello -o jsonpath='{.items[0].metadata.name}')
  expect "kubectl exec" "^$pod" in_pod "$pod" hostname
  expect "kubectl logs" "Started HTTP server" k logs "$pod"
  spawn port-forward cp kubectl -n "$NS" port-forward service/hello 18080:80
  eventually 5 "kubectl port-forward service/hello 18080:80" "^hello-" fetch cp http://127.0.0.1:18080/hostname
  end port-forward
  spawn kubectl-proxy cp kubectl proxy --port=18081
  eventually 5 "kubectl proxy: the Service through the API server" "^hello-" \
    fetch cp "http://127.0.0.1:18081/api/v1/namespaces/$NS/services/hello:80/proxy/hostname"
  end kubectl-proxy
}

who_answers() { # POD: whether it, among others, or only others
  case " $(answering pod/client "http://$IP/hostname") " in *" $1 "*) echo "$1" ;; *) echo others ;; esac
}
a_pod_leaves_by_its_labels() {
  local pod; pod=$(k get pods -l app=hello -o jsonpath='{.items[0].metadata.name}')
  succeed "kubectl label pod app=aside --overwrite" k label pod "$pod" app=aside --overwrite
  eventually 2 "the pod has left the Service" "^others" who_answers "$pod"
  expect "though it runs on" "^$pod" in_pod "$pod" curl -sS -m 3 http://localhost:8080/hostname
  succeed "another takes its place" rolled_out deployment/hello
  k delete pod "$pod" --wait=false >/dev/null
  steady_so_far "a pod left by its labels"
}

delete_the_service_and_expose_it_again() {
  succeed "kubectl delete service hello" k delete service hello
  refused_at_once "deleted: refused from a pod" pod/client "$IP" 80
  refused_at_once "deleted: refused from a node" node2 "$IP" 80
  refused_at_once "deleted: its NodePort is refused from outside" ext "$(node_ip4 node1)" "$NODE_PORT"
  refused_at_once "deleted: its NodePort is refused from a pod" pod/client "$(node_ip4 node3)" "$NODE_PORT"
  eventually 2 "deleted: the name is gone" "Could not resolve host" fetch pod/client http://hello/hostname
  expose
  IP=$(k get service hello -o jsonpath='{.spec.clusterIP}')
  # A negative answer may be kept for its SOA's minimum.
  eventually 10 "exposed again: by name" "^hello-" fetch pod/client http://hello/hostname
  hello_answers
  steady_so_far "a Service was deleted and exposed again"
}
