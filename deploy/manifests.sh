#!/usr/bin/env bash
# manifests.sh [DIRECTORY]: the chart with its default values as plain manifests, one file a role, for
# `kubectl apply -f deploy/manifests`.
set -euo pipefail
deploy=$(dirname "$(readlink -f "$0")")
out=${1:-$deploy/manifests}
helm=${HELM:-$(PATH=$PATH:${CLUSTER_ROOT:-/var/lib/fairlead-cluster}/bin command -v helm)} ||
  { echo "manifests: helm is missing: put it in PATH, name it in HELM, or run tests/cluster/build helm" >&2; exit 1; }
mkdir -p "$out"
# The oldest version of Kubernetes that knows everything in them: another helm must not write others.
"$helm" template fairlead "$deploy/helm/fairlead" --namespace kube-system --kube-version 1.34.0 --set tests.enabled=false |
  awk -v out="$out" '
    /^---$/ { next }
    /^# Source: / {
      part = $3
      sub(/^fairlead\/templates\//, "", part)
      role = index(part, "/") ? substr(part, 1, index(part, "/") - 1) : "config"
      file = out "/fairlead-" role ".yaml"
      if (!(file in begun)) {
        begun[file] = 1
        print "# Made from deploy/helm/fairlead by `make manifests`: change the chart." > file
      }
      print "---" > file
      next
    }
    /^ *$/ { next }
    { print > file }'
