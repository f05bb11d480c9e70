# How one node is made: its files, its cgroups, its daemons. Sourced by `up`; needs lib.sh.
# shellcheck shell=bash

cgroup_roots() { findmnt -rno TARGET -t cgroup,cgroup2 | sort -u; }

# The kubelet wants its cgroupRoot in every hierarchy before it starts, with cpuset filled in.
node_cgroups() { # NODE
  local root file
  for root in $(cgroup_roots); do mkdir -p "$root/$NS_PREFIX$1"; done
  # Pods without requests have next to no weight of their own: on a busy machine, a build beside the cluster would starve them for
  # seconds, and their time-outs would be laid at Fairlead's door.
  for root in /sys/fs/cgroup/cpu "$CG2"; do
    [ ! -f "$root/$NS_PREFIX$1/cpu.shares" ] || echo 16384 >"$root/$NS_PREFIX$1/cpu.shares"
    [ ! -f "$root/$NS_PREFIX$1/cpu.weight" ] || echo 1600 >"$root/$NS_PREFIX$1/cpu.weight"
  done
  for file in cpuset.cpus cpuset.mems; do
    root=/sys/fs/cgroup/cpuset
    [ ! -f "$root/$file" ] || cat "$root/$file" >"$root/$NS_PREFIX$1/$file"
  done
  mkdir -p "$(node_cgroup "$1")/daemons"
  # Where v2 has all controllers they are handed down; in a hybrid mount v1 has them.
  [ "$CG2" = /sys/fs/cgroup ] || return 0
  for root in "$CG2" "$(node_cgroup "$1")"; do
    sed 's/[^ ]\+/+&/g' "$root/cgroup.controllers" >"$root/cgroup.subtree_control"
  done
}

node_network_config() { # NODE FILE: bridge or ptp, dual-stack, addresses from the node's own ranges
  local i=${1#node} link='"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true'
  [ "$CNI" != ptp ] || link='"type":"ptp"'
  cat >"$2" <<JSON
{"cniVersion":"1.0.0","name":"pods","plugins":[
 {$link,"ipMasq":false,"ipam":{"type":"host-local",
  "ranges":[[{"subnet":"$(pod_net4 "$i").0/24"}],[{"subnet":"$(pod_net6 "$i"):/64"}]],
  "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}
JSON
}

containerd_config() { # FILE
  cat >"$1" <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.2"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE a sandbox's -998 cannot be set
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = false
TOML
}

kubelet_config() { # NODE FILE
  cat >"$2" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$1.crt
tlsPrivateKeyFile: $PKI/$1.key
clusterDNS: [$DNS_IP]
clusterDomain: $CLUSTER_DOMAIN
resolvConf: /etc/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
cgroupDriver: cgroupfs
cgroupRoot: /$NS_PREFIX$1
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: 100Mi, nodefs.available: 500Mi, imagefs.available: 500Mi}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
syncFrequency: 20s
volumeStatsAggPeriod: 0s
YAML
}

node_files() { # NODE
  local d=$CLUSTER_ROOT/nodes/$1
  rm -rf "${d:?}"/{ready,etc,var/lib/kubelet,var/lib/cni,var/lib/fairlead,var/log}
  mkdir -p "$d"/{etc/cni/net.d,var/lib/containerd}
  printf 'nameserver %s\noptions ndots:1\n' "$UPSTREAM_DNS" >"$d/etc/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$(node_ip4 "$1")" "$1" >"$d/etc/hosts"
  node_network_config "$1" "$d/etc/cni/net.d/10-pods.conflist"
  containerd_config "$d/containerd.toml"
  kubelet_config "$1" "$d/kubelet.yaml"
}

node_start() { # NODE: its PID 1; ends with the whole node when that is killed
  local n=$1 outer
  node_cgroups "$n"
  node_files "$n"
  (
    exec >>"$LOG/$n-init.log" 2>&1 </dev/null
    close_other_fds
    # shellcheck disable=SC2016
    exec setsid -f bash -c 'echo $$ >"$0"; echo $$ >"$1"; shift; exec "$@"' \
      "$(node_cgroup "$n")/daemons/cgroup.procs" "$RUN/$n-outer.pid" \
      nsenter --net="$(ns "$n")" -- \
      unshare --mount --propagation private --uts --ipc --pid --fork --kill-child --mount-proc \
      "$HERE/node-init" "$n"
  )
  wait_for 10 "$n" test -f "$CLUSTER_ROOT/nodes/$n/ready"
  outer=$(cat "$RUN/$n-outer.pid")
  rm "$RUN/$n-outer.pid" # it ends with the inner one
  pgrep -P "$outer" >"$RUN/$n.pid"
}

kubelet_start() { # NODE
  local n=$1 zone=zone$(((${1#node} - 1) % 3 + 1)) gates=()
  [ -z "$FEATURE_GATES" ] || gates=(--feature-gates="$FEATURE_GATES")
  node_spawn kubelet "$n" kubelet --config="$CLUSTER_ROOT/nodes/$n/kubelet.yaml" \
    --kubeconfig="$PKI/$n.kubeconfig" --hostname-override="$n" \
    --node-ip="$(node_ip4 "$n"),$(node_ip6 "$n")" \
    --node-labels="topology.kubernetes.io/region=here,topology.kubernetes.io/zone=$zone" \
    "${gates[@]}"
}

node_up() { # NODE: from nothing to Ready
  local n=$1 i=${1#node} cidr4 cidr6
  node_start "$n"
  node_spawn containerd "$n" containerd --config "$CLUSTER_ROOT/nodes/$n/containerd.toml"
  wait_for 30 "$n's containerd" in_node "$n" ctr version
  load_images "$n"
  wait_for 90 "kube-apiserver" kc get --raw /readyz
  kubelet_start "$n"
  wait_for 60 "$n's registration" kc get node "$n"
  # Nodes register in any order, and the static routes want node N to have range N.
  cidr4=$(pod_net4 "$i").0/24 cidr6=$(pod_net6 "$i"):/64
  kc patch node "$n" -p "{\"spec\":{\"podCIDR\":\"$cidr4\",\"podCIDRs\":[\"$cidr4\",\"$cidr6\"]}}" >/dev/null
  [ "$PROXY" != kube-proxy ] || "$HERE/proxy" start "$n"
  wait_for 90 "$n being Ready" kc wait --for=condition=Ready "node/$n" --timeout=1s
}
