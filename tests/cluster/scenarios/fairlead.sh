# Fairlead's own pods, as the scenarios see them.
# shellcheck shell=bash disable=SC2034
SYSTEM=kube-system ROLES=(node dns ingress)
IMAGE_NAME=ghcr.io/fairlead/fairlead
s() { kc -n "$SYSTEM" "$@"; }
# What `deploy` told the chart. Helm runs where kubectl does.
release() { # HELM-ARGS...
  in_ns cp helm upgrade fairlead "$REPO/deploy/helm/fairlead" --namespace "$SYSTEM" --values "$RUN/values.yaml" "$@"
}

all_rolled_out() {
  local role
  for role in "${ROLES[@]}"; do
    s rollout status "daemonset/fairlead-$role" --timeout=120s || return
  done
}
every_pod_is_ready() { succeed "every pod of Fairlead is ready" all_rolled_out; }
pod_on() { # ROLE NODE: its pod that is not ending
  s get pods -l "app.kubernetes.io/component=$1" --field-selector "spec.nodeName=$2" -o json |
    jq -r '[.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name] | first // empty'
}
# agent_pid ROLE NODE: its process on the machine.
agent_pid() {
  local uid pid
  uid=$(s get pod "$(pod_on "$1" "$2")" -o jsonpath='{.metadata.uid}')
  [ -n "$uid" ] || return
  while read -r pid; do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != fairlead ] || { echo "$pid"; return; }
  done < <(find "$(node_cgroup "$2")" -path "*pod$uid*" -name cgroup.procs -exec cat {} + 2>/dev/null)
}
restarts() { # ROLE NODE: and whether it is ready, and why it ended last
  s get pod "$(pod_on "$1" "$2")" -o json | jq -r '.status.containerStatuses[0] |
    "\(.restartCount) \(.ready) \(.lastState.terminated.reason // "-")"'
}
# killed ROLE NODE: SIGKILL to the process. Its kubelet starts it again.
killed() {
  local pid; pid=$(agent_pid "$1" "$2")
  [ -n "$pid" ] && kill -KILL "$pid"
}
