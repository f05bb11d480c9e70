#!/usr/bin/env bash
# Fuzzes one target for so many seconds, or each in turn: tools/fuzz.sh [TARGET] [SECONDS]. libFuzzer comes from crates.io. What was
# done is added to docs/results/fuzz.md. KEEP=1: of the inputs that are new, those that add something go into the corpus.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../fuzz"
# Numbers have points.
export LC_ALL=C
targets=${1:-$(ls fuzz_targets | sed 's/\.rs$//')}
seconds=${2:-60}
room=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
# What is kept is in the repository for good and replayed by each `make test`: so many inputs a target, and bytes in all.
KEPT_MAX=128 KEPT_BYTES_MAX=65536
# What libFuzzer ends with.
TIMEOUT=70 INTERRUPTED=72
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
follow() {
  local line shown=$SECONDS
  # Ctrl-C is for the fuzzer, whose last words are wanted.
  trap '' INT
  while IFS= read -r line; do
    printf '%s\n' "$line" >&3
    case $line in
    '#'*)
      [ $((SECONDS - shown)) -lt 10 ] || { shown=$SECONDS; echo "fuzz: $target: $(tr -s '\t ' ' ' <<<"$line")"; } ;;
    *'panicked at'* | *'ERROR: libFuzzer'* | 'stat::number_of_executed_units'*) echo "fuzz: $target: $line" ;;
    esac
  done 3>"$room/$target.log"
}

fuzz() { # SECONDS
  {
    TIMEFORMAT='%U %S'
    time "$binary" -max_total_time="$1" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="$crashes/" "$found" "corpus/$target" 2>&1
  } 2>"$room/$target.time" | follow
}

# libFuzzer's timeouts are by the clock, so that a run which was paused meets one on waking: a find comes again.
forget_timeouts_that_do_not_come_again() {
  local input forgotten=1
  for input in "$crashes"/timeout-*; do
    [ -e "$input" ] && [[ $input != *.small ]] && [ ! -e "$input.small" ] || continue
    if "$binary" -timeout=10 "$input" >"$room/$target.again.log" 2>&1; then
      rm "$input"
      forgotten=0
    fi
  done
  return "$forgotten"
}

# The smallest input that fails the same is the one to keep.
minimize() {
  local crash
  for crash in "$crashes"/{crash,oom,timeout}-*; do
    [ -e "$crash" ] && [[ $crash != *.small ]] && [ ! -e "$crash.small" ] || continue
    "$binary" -minimize_crash=1 -max_total_time=20 -timeout=10 -exact_artifact_path="$crash.small" "$crash" \
      >"$room/$target.minimize.log" 2>&1 || true
    [ -e "$crash.small" ] || cp "$crash" "$crash.small"
    echo "fuzz: $target: found $crash.small ($(stat -c %s "$crash.small") bytes)"
  done
}

# Of what is new, the smallest inputs that reach the same stay.
merge() {
  rm -rf "$found.merged"
  mkdir "$found.merged"
  if "$binary" -merge=1 -timeout=10 "$found.merged" "$found" >"$room/$target.merge.log" 2>&1; then
    rm -rf "$found"
    mv "$found.merged" "$found"
  fi
}

# Into the corpus goes what reaches something new there, as few inputs as do, the smallest first.
keep() {
  local fresh=$room/fresh/$target count bytes size name kept=0
  rm -rf "$fresh"
  mkdir -p "$fresh"
  cp "corpus/$target"/* "$fresh"
  if ! "$binary" -set_cover_merge=1 -timeout=10 "$fresh" "$found" >"$room/$target.keep.log" 2>&1; then
    echo "fuzz: $target: nothing is kept: see $room/$target.keep.log" >&2
    return
  fi
  count=$(ls "corpus/$target" | wc -l)
  bytes=$(cat "corpus/$target"/* | wc -c)
  while read -r size name; do
    [ ! -e "corpus/$target/$name" ] || continue
    count=$((count + 1)) bytes=$((bytes + size))
    if [ "$count" -gt "$KEPT_MAX" ] || [ "$bytes" -gt "$KEPT_BYTES_MAX" ]; then
      echo "fuzz: $target: the corpus is full: larger inputs stay in $found"
      break
    fi
    cp "$fresh/$name" "corpus/$target/$name"
    kept=$((kept + 1))
  done < <(cd "$fresh" && stat -c '%s %n' -- * | sort -n)
  echo "fuzz: $target: kept $kept new inputs"
}

status=0
for target in $targets; do
  binary=$room/$host/release/$target found=$room/found/$target crashes=$room/crashes/$target
  mkdir -p "$found" "$crashes"
  echo "fuzz: $target for $seconds s, from $(find "corpus/$target" "$found" -type f | wc -l) inputs"
  end=$((SECONDS + seconds)) again=1 code=0
  while [ -n "$again" ] && [ "$SECONDS" -lt "$end" ]; do
    again= code=0
    fuzz "$((end - SECONDS))" || code=$?
    if [ "$code" = "$TIMEOUT" ] && forget_timeouts_that_do_not_come_again; then
      again=1 code=0
    fi
    ../tools/fuzz.py "$target" "$room/$target.log" "$room/$target.time"
  done
  if [ "$code" != 0 ] && [ "$code" != "$INTERRUPTED" ]; then
    status=1
    minimize
  fi
  merge
  if [ -n "${KEEP:-}" ]; then
    keep
    ../tools/fuzz.py
  fi
  [ "$code" != "$INTERRUPTED" ] || { echo "fuzz: interrupted: what was done until then counts" >&2; exit 130; }
done
[ "$status" = 0 ] || echo "fuzz: something was found: see $room/crashes and $room/*.log" >&2
exit "$status"
