#!/usr/bin/env bash
# Fuzzes one target for so many seconds, or each in turn: tools/fuzz.sh [TARGET] [SECONDS]. libFuzzer comes from crates.io.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../fuzz"
targets=${1:-$(ls fuzz_targets | sed 's/\.rs$//')}
seconds=${2:-60}
room=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
# Nothing here loads the kernel programs.
export FAIRLEAD_EBPF=skip

# What cargo-fuzz gives a nightly compiler, but for the address sanitizer, which needs one: the parsers have no unsafe code.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
bins=()
for target in $targets; do
  [ -e "fuzz_targets/$target.rs" ] || { echo "fuzz: no target $target: there are" $(ls fuzz_targets | sed 's/\.rs$//') >&2; exit 2; }
  bins+=(--bin "$target")
done
# What is fuzzed is built of what the product is built of; libFuzzer is added to it.
cp ../Cargo.lock Cargo.lock
# A named host keeps the flags from build scripts and macros.
cargo build -j"${CARGO_BUILD_JOBS:-2}" --release --target "$host" "${bins[@]}"

# libFuzzer's words, kept in a log; every ten seconds how far it is, and at once what it finds.
follow() { # TARGET
  local line shown=$SECONDS
  while IFS= read -r line; do
    printf '%s\n' "$line" >&3
    case $line in
    '#'*)
      [ $((SECONDS - shown)) -lt 10 ] || { shown=$SECONDS; echo "fuzz: $1: $(tr -s '\t ' ' ' <<<"$line")"; } ;;
    *'panicked at'* | *'ERROR: libFuzzer'* | 'stat::number_of_executed_units'*) echo "fuzz: $1: $line" ;;
    esac
  done 3>"$room/$1.log"
}

status=0
for target in $targets; do
  binary=$room/$host/release/$target found=$room/found/$target crashes=$room/crashes/$target
  mkdir -p "$found" "$crashes"
  echo "fuzz: $target for $seconds s, from $(find "corpus/$target" "$found" -type f | wc -l) inputs"
  if ! "$binary" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$crashes/" "$found" "corpus/$target" 2>&1 | follow "$target"; then
    status=1
    for crash in "$crashes"/{crash,oom,timeout}-*; do
      [ -e "$crash" ] && [[ $crash != *.small ]] && [ ! -e "$crash.small" ] || continue
      # The smallest input that fails the same is the one to keep.
      "$binary" -minimize_crash=1 -max_total_time=20 -timeout=10 -exact_artifact_path="$crash.small" "$crash" \
        >"$room/$target.minimize.log" 2>&1 || true
      [ -e "$crash.small" ] || cp "$crash" "$crash.small"
      echo "fuzz: $target: found $crash.small ($(stat -c %s "$crash.small") bytes)"
    done
  fi
  # Of what is new, the smallest inputs that reach the same stay.
  rm -rf "$found.merged"
  mkdir "$found.merged"
  if "$binary" -merge=1 -timeout=10 "$found.merged" "$found" >"$room/$target.merge.log" 2>&1; then
    rm -rf "$found"
    mv "$found.merged" "$found"
  fi
done
[ "$status" = 0 ] || echo "fuzz: something was found: see $room/crashes and $room/*.log" >&2
exit "$status"
