# Settings and helpers of the cluster scripts and of the scenarios. Every setting can be given in the
# environment; one that is not given is what the running cluster has, or else the default.
# shellcheck shell=bash disable=SC2034
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
REPO=$(dirname "$(dirname "$HERE")")

: "${CLUSTER_ROOT:=/var/lib/fairlead-cluster}" # builds, images, certificates, node disks, logs
RUN=$CLUSTER_ROOT/run LOG=$CLUSTER_ROOT/log PKI=$CLUSTER_ROOT/pki
# shellcheck source=/dev/null
[ ! -f "$RUN/settings" ] || . "$RUN/settings"

: "${NODES:=3}"              # 1 to 9; node N is in zone (N - 1) % 3 + 1
: "${PROXY:=none}"           # none | kube-proxy: who balances Services after `up`
: "${PROXY_MODE:=nftables}"  # nftables | iptables: kube-proxy's mode
: "${DNS:=none}"             # none | coredns: who answers cluster names after `up`
: "${CNI:=bridge}"           # bridge | ptp
: "${LB:=none}"              # none | routes: see lb
: "${NS_PREFIX:=}"           # before every namespace's and node cgroup's name: tells clusters apart
: "${FEATURE_GATES:=}"       # A=true,B=false for every Kubernetes component but kube-proxy
: "${PROXY_FEATURE_GATES:=}" # A: true, B: false for kube-proxy
: "${NODE_PORT_ADDRESSES:=}" # primary, localhost, a range, ...: kube-proxy's nodePortAddresses, if not its default
: "${RUNTIME_CONFIG:=}"      # kube-apiserver --runtime-config
: "${BIN:=$CLUSTER_ROOT/bin}"
SETTINGS=(NODES PROXY PROXY_MODE DNS CNI LB NS_PREFIX FEATURE_GATES PROXY_FEATURE_GATES
  NODE_PORT_ADDRESSES RUNTIME_CONFIG)

NODE_NET4=192.168.100   NODE_NET6=fd00:192:168:100:
POD_CIDR4=10.180.0.0/16 POD_CIDR6=fd00:10:180::/56
SVC_CIDR4=10.96.0.0/16  SVC_CIDR6=fd00:10:96::/112
DNS_IP=10.96.0.10 CLUSTER_DOMAIN=cluster.local
CP=$NODE_NET4.10 # the API server is https://$CP:6443, from nodes, pods and the outside client alike
EXT_NET4=203.0.113 EXT_NET6=2001:db8:113: UPSTREAM_DNS=203.0.113.53
EXT4=$EXT_NET4.10 EXT6=${EXT_NET6}:10

if [ -d /sys/fs/cgroup/unified ]; then CG2=/sys/fs/cgroup/unified; else CG2=/sys/fs/cgroup; fi
export KUBECONFIG=$PKI/admin.kubeconfig
case :$PATH: in *:"$BIN":*) ;; *) export PATH=$BIN:$PATH:/usr/sbin:/sbin ;; esac
: "${T0:=$EPOCHREALTIME}"

# --- saying -----------------------------------------------------------------------------------
die() { echo "error: $*" >&2; exit 1; }
note() { # WHAT...: a line with the time since the script began
  local t=$(((${EPOCHREALTIME/./} - ${T0/./}) / 100000))
  printf '%4d.%ds  %s\n' $((t / 10)) $((t % 10)) "$*"
}

# --- names and addresses ----------------------------------------------------------------------
pod_net4() { echo "10.180.$1"; }           # INDEX
pod_net6() { echo "fd00:10:180:$1:"; }     # INDEX
node_ip4() { echo "$NODE_NET4.1${1#node}"; } # NODE
node_ip6() { echo "$NODE_NET6:1${1#node}"; } # NODE
node_names() { seq -f node%g "$NODES"; }
ns() { echo "/run/netns/$NS_PREFIX$1"; }
# The cgroup v2 directory of a node: its daemons and its pods are all below it.
node_cgroup() { echo "$CG2/$NS_PREFIX$1"; }

# --- running things somewhere -----------------------------------------------------------------
# in_ns NAMESPACE CMD...: CMD with that network namespace (cp, ext, fabric) and nothing else changed.
in_ns() {
  local n=$1; shift
  [ -e "$(ns "$n")" ] || die "there is no namespace $n: is the cluster up? (tests/cluster/up)"
  nsenter --net="$(ns "$n")" -- "$@"
}
# kc ARGS...: kubectl as the cluster's administrator.
kc() { in_ns cp kubectl "$@"; }

# in_node NODE CMD...: CMD as on the node: its mounts, host name, processes, network and cgroup.
in_node() {
  local n=$1; shift
  [ -f "$RUN/$n.pid" ] || die "there is no node $n: is the cluster up? (tests/cluster/up)"
  # shellcheck disable=SC2016
  bash -c 'echo $$ >"$0"; exec "$@"' "$(node_cgroup "$n")/daemons/cgroup.procs" \
    nsenter -t "$(cat "$RUN/$n.pid")" -m -u -i -n -p -- "$@"
}

# A daemon must not keep its starter's locks and pipes: only 0, 1 and 2 stay open.
close_other_fds() {
  local fd
  for fd in "/proc/$BASHPID/fd"/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
  done
}
# spawn NAME NAMESPACE CMD...: a daemon outside the nodes; its process id is in run/NAME.pid.
spawn() {
  local name=$1 n=$2; shift 2
  (
    exec >>"$LOG/$name.log" 2>&1 </dev/null
    close_other_fds
    # shellcheck disable=SC2016
    exec setsid -f bash -c 'echo $$ >"$0"; exec "$@"' "$RUN/$name.pid" \
      nsenter --net="$(ns "$n")" -- "$@"
  )
  wait_for 5 "$name" test -s "$RUN/$name.pid"
}
# end NAME [SECONDS]: ends what spawn started: TERM, and KILL after SECONDS (20).
end() {
  local f=$RUN/$1.pid t=$((SECONDS + ${2:-20})) pid
  [ -f "$f" ] || return 0
  pid=$(cat "$f")
  kill "$pid" 2>/dev/null || true
  while lives "$pid"; do
    [ $SECONDS -lt $t ] || { kill -KILL "$pid" 2>/dev/null || true; break; }
    sleep 0.1
  done
  rm -f "$f"
}
# node_spawn NAME NODE CMD...: a daemon on a node; its id there is in run/NODE-NAME.ipid.
node_spawn() {
  local name=$1 n=$2; shift 2
  rm -f "$RUN/$n-$name.ipid"
  (
    exec >>"$LOG/$n-$name.log" 2>&1 </dev/null
    close_other_fds
    # shellcheck disable=SC2016
    in_node "$n" setsid bash -c 'echo $$ >"$0"; exec "$@"' "$RUN/$n-$name.ipid" "$@" &
  )
  wait_for 10 "$name on $n" test -s "$RUN/$n-$name.ipid"
}
node_alive() { # NAME NODE
  [ -f "$RUN/$2-$1.ipid" ] && in_node "$2" kill -0 "$(cat "$RUN/$2-$1.ipid")" 2>/dev/null
}
node_kill() { # NAME NODE [SIGNAL]: ends what node_spawn started and waits for it
  local f=$RUN/$2-$1.ipid t=$((SECONDS + 20))
  [ -f "$f" ] || return 0
  in_node "$2" kill -"${3:-TERM}" "$(cat "$f")" 2>/dev/null || true
  while node_alive "$1" "$2"; do
    [ $SECONDS -lt $t ] || { in_node "$2" kill -KILL "$(cat "$f")" 2>/dev/null || true; break; }
    sleep 0.1
  done
  rm -f "$f"
}

# --- images -----------------------------------------------------------------------------------
import_image() { # NODE FILE.tar
  in_node "$1" ctr -n k8s.io images import --local "$2" >>"$LOG/$1-images.log" 2>&1 ||
    die "$1 could not import $2: see $LOG/$1-images.log"
}
load_images() { # NODE: what is new in images/; a node's image store outlives `down`
  local i mark
  for i in "$CLUSTER_ROOT"/images/*.tar; do
    mark=$CLUSTER_ROOT/nodes/$1/$(basename "$i").imported
    [ "$mark" -nt "$i" ] || { import_image "$1" "$i" && touch "$mark"; }
  done
}

# --- waiting ----------------------------------------------------------------------------------
lives() { # PID: and is not a zombie that nobody has reaped yet
  local state
  state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) && [[ $state != Z* && -n $state ]]
}
alive() { [ -f "$1" ] && lives "$(cat "$1")"; } # PIDFILE
wait_for() { # SECONDS WHAT CMD...: until CMD succeeds
  local t=$((SECONDS + $1)) s=$1 what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $t ] || die "$what: not there after $s s (logs: $LOG)"
    sleep 0.2
  done
}
