# The commands of docs/migrate.md, as they stand there. Sourced by `takeover`.
# shellcheck shell=bash
GUIDE=$REPO/docs/migrate.md

commands_of() { # NAME: the block behind `<!-- run: NAME -->`
  awk -v mark="<!-- run: $1 -->" '$0 == mark {found = 1; next} found && /^```/ {if (open) exit; open = 1; next} open' "$GUIDE"
}
# follow NAME WHAT: runs them where kubectl and helm reach the cluster, beside values.yaml and the repository's deploy/, and
# looks at the traffic.
follow() {
  local block; block=$(commands_of "$1")
  [ -n "$block" ] || { not_ok "$2" "docs/migrate.md has no commands for $1"; return; }
  if [ ! -e "$WORK/deploy" ]; then
    ln -s "$REPO/deploy" "$WORK/deploy"
    cp "$RUN/values.yaml" "$WORK/values.yaml"
  fi
  succeed "$2 ($1)" in_work_dir bash -euo pipefail -c "$block"
  steady_so_far "$2"
}
in_work_dir() { (cd "$WORK" && in_ns cp "$@"); }
