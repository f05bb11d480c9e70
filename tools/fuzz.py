#!/usr/bin/env python3
"""Adds up what fuzzing has done: docs/results/fuzz.json, and from it docs/results/fuzz.md.

tools/fuzz.py TARGET LOG TIME   adds a run: what libFuzzer said, and its seconds of processor time, user and system
tools/fuzz.py                   writes the page alone
"""

import datetime
import fcntl
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ROOT / "fuzz/fuzz_targets"
CORPUS = ROOT / "fuzz/corpus"
SUMS = ROOT / "docs/results/fuzz.json"
PAGE = ROOT / "docs/results/fuzz.md"
# They change by running.
WRITTEN = [f":!{path.relative_to(ROOT)}" for path in (SUMS, PAGE, CORPUS)]
NOTHING = {"cpu_s": 0.0, "executions": 0, "crashes": 0, "last": "", "commit": ""}

NOTES = """Every parser of bytes from outside has a target in `fuzz/`. `make fuzz` adds each run to `fuzz.json` and writes this page from it. Processor time is
the fuzzer's own, user and system: a pause or a busy machine adds nothing. A crash is counted each time a run ends with one; mended, its input is in
the corpus, which `make test` replays."""


def run_of(log, time):
    """What a run did. One that was killed has no last words: it got as far as its last `#N` says."""
    told = re.findall(r"^stat::number_of_executed_units: +(\d+)$", log, re.M) or re.findall(r"^#(\d+)\t", log, re.M)
    # The shell may have said above it how the fuzzer ended.
    seconds = time.strip().splitlines()[-1].split()
    # A timeout that did not come again is there no more (tools/fuzz.sh).
    found = re.findall(r"Test unit written to (.*/(?:crash|oom|timeout)-\w+)$", log, re.M)
    return {
        "cpu_s": sum(float(part) for part in seconds),
        "executions": int(told[-1]) if told else 0,
        "crashes": sum(pathlib.Path(path).exists() for path in found),
    }


def added(before, run, date, commit):
    sums = {name: before[name] + value for name, value in run.items()}
    return {**sums, "cpu_s": round(sums["cpu_s"], 2), "last": date, "commit": commit}


def page(sums):
    rows = [(target, sums.get(target.stem, NOTHING)) for target in sorted(TARGETS.glob("*.rs"))]
    whole = {name: sum(done[name] for _, done in rows) for name in ("cpu_s", "executions", "crashes")}
    lines = [
        "# Fuzzing: what was done",
        "",
        NOTES,
        "",
        f"In all: {clock(whole['cpu_s'])} of processor time, {whole['executions']:,} executions, crashes found: {whole['crashes']}.",
        "",
        "| target | bytes are | processor time | executions | inputs in the corpus | last run | crashes found |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, done in rows:
        inputs = sum(1 for _ in (CORPUS / target.stem).iterdir())
        last = f"{done['last']}, {done['commit']}" if done["last"] else "none"
        cells = (f"`{target.stem}`", reads(target), clock(done["cpu_s"]), f"{done['executions']:,}", inputs, last, done["crashes"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def reads(target):
    """The first line of its documentation."""
    first = target.read_text().splitlines()[0]
    if not first.startswith("//! "):
        sys.exit(f"fuzz: {target.relative_to(ROOT)}: its first line does not say what it reads (`//! ...`)")
    return first.removeprefix("//! ").removesuffix(".")


def clock(seconds):
    """h:mm:ss"""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()


def commit():
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def main():
    if len(sys.argv) not in (1, 4):
        sys.exit(__doc__)
    # Targets may be fuzzed side by side.
    with SUMS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sums = json.load(file)
        if len(sys.argv) == 4:
            target, log, time = sys.argv[1:]
            run = run_of(pathlib.Path(log).read_text(errors="replace"), pathlib.Path(time).read_text())
            today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
            sums[target] = added(sums.get(target, NOTHING), run, today, commit())
            lines = (f"  {json.dumps(name)}: {json.dumps(done)}" for name, done in sorted(sums.items()))
            file.seek(0)
            file.truncate()
            file.write("{\n" + ",\n".join(lines) + "\n}\n")
        PAGE.write_text(page(sums))


main()
