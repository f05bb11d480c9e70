# Scaling, healing, updating; StatefulSets and Jobs. Sourced by `tutorial`.
# shellcheck shell=bash

all_answer() { # the ready pods of hello, and nobody else
  local want; want=$(pods_of app=hello)
  [ "$(wc -w <<<"$want")" = "$1" ] || { echo "pods: $want"; return; }
  [ "$(answering pod/client "http://$IP/hostname" 150)" = "$want" ] && echo "all $1" || echo "want: $want"
}

scale_to_5_and_to_2() {
  succeed "kubectl scale --replicas=5" k scale deployment hello --replicas=5
  rolled_out deployment/hello >/dev/null
  eventually 2 "all 5 pods answer" "^all 5" all_answer 5
  steady_so_far "scaled to 5"
  succeed "kubectl scale --replicas=2" k scale deployment hello --replicas=2
  eventually 3 "only 2 pods answer" "^all 2" all_answer 2
  steady_so_far "scaled to 2"
}

delete_a_pod() {
  local pod; pod=$(k get pods -l app=hello -o jsonpath='{.items[0].metadata.name}')
  succeed "kubectl delete pod" k delete pod "$pod" --wait=false
  eventually 30 "another takes its place and answers" "^all 2" all_answer 2
  steady_so_far "a pod was deleted"
}

tags() { # of the images that answer
  local _; for _ in $(seq 12); do
    fetch pod/client "http://$IP/shell?cmd=cat%20/image-tag" | jq -rj '.output'
  done | sort -u | paste -sd ' '
}
update_and_undo() {
  succeed "kubectl set image" k set image deployment/hello agnhost="$AGNHOST_OLD"
  succeed "kubectl rollout status" rolled_out deployment/hello
  eventually 3 "only the new image answers" "^2.55 *$" tags
  steady_so_far "an image was set"
  succeed "kubectl rollout undo" k rollout undo deployment/hello
  rolled_out deployment/hello >/dev/null
  eventually 3 "only the former image answers" "^2.66.1 *$" tags
  steady_so_far "a rollout was undone"
}

stateful_names() {
  local before after
  k apply -f "$SCENARIOS/manifests/stateful.yaml" >/dev/null
  succeed "a StatefulSet with a headless Service gets ready" k rollout status statefulset/db --timeout=90s
  expect "a pod knows its own full name" "^db-1\.db\.$NS\.svc\.cluster\.local" in_pod db-1 hostname -f
  expect "a pod finds another by name" "^db-1" in_pod db-0 curl -sS -m 3 http://db-1.db:8080/hostname
  before=$(k get pod db-0 -o jsonpath='{.status.podIP}')
  expect "db-0.db is its address" "^${before//./\\.} " in_pod client getent ahostsv4 db-0.db
  expect "db is both addresses" "^2\$" in_pod client sh -c 'getent ahostsv4 db | cut -d" " -f1 | sort -u | wc -l'
  succeed "kubectl delete pod db-0" k delete pod db-0
  succeed "it comes back" k wait --for=condition=Ready pod/db-0 --timeout=60s
  after=$(k get pod db-0 -o jsonpath='{.status.podIP}')
  check "with another address ($before, $after)" "$([ "$before" != "$after" ]; echo $?)" "the same"
  # What a resolver was told before may be kept for the TTL of 5 s by whoever caches; we do not.
  eventually 2 "db-0.db is its new address" "^${after//./\\.} " in_pod client getent ahostsv4 db-0.db
  expect "and answers by name" "^db-0" in_pod client curl -sS -m 3 http://db-0.db:8080/hostname
  steady_so_far "a StatefulSet came and lost a pod"
}

# Its time comes by itself while other things happen; see jobs_call_at_once.
create_a_cron_job() { k apply -f "$SCENARIOS/manifests/caller.yaml" >/dev/null; }
job_succeeds() { # NAME: its pod called the Service with its first packet; there are no second tries
  k wait --for=condition=complete "job/$1" --timeout=30s >/dev/null 2>&1
  k logs "job/$1"
}
jobs_call_at_once() {
  local first
  succeed "kubectl create job --from=cronjob/caller" k create job caller-now --from=cronjob/caller
  expect "a Job's pod calls a Service by name at once" "^hello-" job_succeeds caller-now
  scheduled() { k get jobs -o json | jq -r '[.items[] | select(.metadata.ownerReferences[0].kind == "CronJob")
    | select(.metadata.name != "caller-now") | .metadata.name] | first // "none"'; }
  eventually 70 "the CronJob's time comes" "^caller-" scheduled
  first=$(scheduled)
  expect "a CronJob's pod calls a Service by name at once" "^hello-" job_succeeds "$first"
}
