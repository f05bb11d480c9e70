# Upgrades, and pods deleted one by one. Sourced by `roll`.
# shellcheck shell=bash

# another_image TAG: this build under another name and digest, on every node.
another_image() {
  "$SCENARIOS/relabel.py" "${IMAGE:-$REPO/target/image/fairlead.tar}" "$WORK/$1.tar" "$IMAGE_NAME:$1" &&
    "$HERE/load-image" "$WORK/$1.tar"
}
images() { # that Fairlead's pods run, by digest
  s get pods -l app.kubernetes.io/name=fairlead -o json | jq -r '[.items[] |
    select(.metadata.deletionTimestamp == null) | .status.containerStatuses[0].imageID] | unique | join(" ")'
}
another_build_and_back() {
  local before after
  before=$(images)
  succeed "another build is on every node" another_image next
  succeed "helm upgrade to it" release --set image.tag=next
  succeed "every pod of it gets ready" all_rolled_out
  after=$(images)
  check "and it is another build" "$([ "$before" != "$after" ] && [ "$(wc -w <<<"$after")" = 1 ]; echo $?)" "$after"
  steady_so_far "helm upgrade"
  succeed "helm rollback" in_ns cp helm rollback fairlead --namespace "$SYSTEM"
  succeed "every pod gets ready" all_rolled_out
  eventually 60 "and it is the build from before" "^$before\$" images
  steady_so_far "helm rollback"
}
every_pod_is_deleted() {
  local role n pod
  for role in "${ROLES[@]}"; do
    for n in $(node_names); do
      pod=$(pod_on "$role" "$n")
      s delete pod "$pod" --wait=false >/dev/null
      until [ "$(pod_on "$role" "$n")" != "$pod" ] && [ -n "$(pod_on "$role" "$n")" ]; do sleep 0.2; done
      all_rolled_out >/dev/null
    done
    steady_so_far "kubectl delete pod, each of fairlead-$role in turn"
  done
}
