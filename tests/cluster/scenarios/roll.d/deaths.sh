# Agents that die without a word. Sourced by `roll`.
# shellcheck shell=bash

every_node_agent_is_killed() {
  local n was
  for n in $(node_names); do
    was=$(restarts node "$n")
    succeed "kill -9 of $n's node agent" killed node "$n"
    eventually 40 "$n's node agent is back" "^$((${was%% *} + 1)) true " restarts node "$n"
  done
  steady_so_far "every node agent was killed"
}

# Questions that reach the dead server before its kubelet has started the next one are lost, those of its own node above all: the
# kernel refuses the first ones at once and leaves others to the resolver's patience of 5 s. That is told, not judged; that
# everything else goes on, is.
a_dns_server_is_killed() {
  local was; was=$(restarts dns node1)
  succeed "kill -9 of node1's name server" killed dns node1
  eventually 40 "node1's name server is back" "^$((${was%% *} + 1)) true " restarts dns node1
  sleep 6 # until the last of the lost questions is given up
  steady_forget_way "pod, its DNS questions" "bare questions while the server was dead"
  steady_forget_way "pod, by name" "lookups while the server was dead"
  steady_so_far "a name server was killed, and is back"
}

# Connections to the killed process are gone with it, and the node's ports are closed until the next one listens: a load
# balancer in front leaves such a node out. Other nodes' Ingress must not notice.
an_ingress_is_killed() {
  local was; was=$(restarts ingress node3)
  succeed "kill -9 of node3's Ingress" killed ingress node3
  eventually 40 "node3's Ingress is back" "^$((${was%% *} + 1)) true " restarts ingress node3
  eventually 5 "and serves" "^hello-" https ext node3 /hostname
  steady_forget_way "outside, Ingress of node3" "requests to the dead Ingress"
  steady_so_far "an Ingress was killed, by every other way"
}

# The kernel's own out-of-memory killer ends the agent: its memory limit is lowered to little more than it has, and a
# neighbour in its cgroup takes the rest. The agent is made the first choice.
starve() { # NODE
  local pid group limit used
  pid=$(agent_pid node "$1")
  [ -n "$pid" ] || { echo "no agent on $1"; return 1; }
  group=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' "/proc/$pid/cgroup")
  limit=memory.limit_in_bytes used=memory.usage_in_bytes
  [ -f "$group/$limit" ] || { group=$CG2$(sed -n 's/^0:://p' "/proc/$pid/cgroup") limit=memory.max used=memory.current; }
  echo 1000 >"/proc/$pid/oom_score_adj"
  echo $(($(cat "$group/$used") + (16 << 20))) >"$group/$limit" || return
  (echo "$BASHPID" >"$group/cgroup.procs"; exec tail /dev/zero) 2>/dev/null
  for _ in $(seq 50); do # until its shim has taken it away
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "its process lives on"
  return 1
}
a_node_agent_is_out_of_memory() {
  local was; was=$(restarts node node2)
  succeed "node2's node agent is out of memory" starve node2
  eventually 40 "it was OOMKilled and is back" "^$((${was%% *} + 1)) true (OOMKilled|Error)" restarts node node2
  note "its last end, as the cluster saw it: $(restarts node node2)"
  steady_so_far "a node agent was out of memory"
}
