#!/usr/bin/env python3
"""Turns reports of the e2e suite into tables.

e2e-table.py --about SUBJECT REPO    what ran, where and when, as JSON: kept beside each report
e2e-table.py --text REPORT...        a line a spec: state, seconds, name; under it why it did not pass
e2e-table.py --checks REPORT...      a line a spec, as the other tests print theirs: `ok - e2e: NAME`
e2e-table.py --markdown DIR CAUSES LEFT_OUT PAGE
                                     DIR/SUBJECT/*.json of both subjects side by side, as docs/results/e2e.md (PAGE) has it;
                                     what PAGE says of a subject without reports stays

Reports are merged in the order they were written: the last verdict on a spec counts, and neither a run cut short nor a skip overrules it.
"""
import collections
import datetime
import glob
import json
import os
import re
import subprocess
import sys

SUBJECTS = [("fairlead", "Fairlead"), ("kube-proxy", "kube-proxy, CoreDNS")]
Verdict = collections.namedtuple("Verdict", "state seconds why commit")


def verdicts(reports):
    """name -> Verdict, the wall time of all reports, and the names of all specs there are, run or not."""
    found, wall, names = {}, 0.0, set()
    for path in reports:
        commit = about(path).get("commit", "")
        with open(path) as f:
            suites = json.load(f)
        for suite in suites:
            wall += suite["RunTime"] / 1e9
            for spec in suite["SpecReports"] or []:
                why = " ".join(spec.get("Failure", {}).get("Message", "").split())[:300]
                state = spec["State"]
                if suite["SuiteConfig"].get("DryRun") and state == "passed":
                    state = "listed"
                name = " ".join((spec["ContainerHierarchyTexts"] or []) + [spec["LeafNodeText"]])
                if spec["LeafNodeType"] != "It" or not name.startswith("[sig-network]"):
                    continue
                names.add(name)
                if state == "pending" or (state == "skipped" and not why):
                    continue
                before = found.get(name)
                # A spec skips itself on a cluster too small for it; another run had a larger one.
                if before and (state in ("interrupted", "aborted") or (state == "skipped" and before.state == "passed")):
                    continue
                if state == "passed" and before and before.state != "passed" and before.commit == commit:
                    why = "at first: " + before.why
                found[name] = Verdict(state, spec["RunTime"] / 1e9, why, commit)
    return found, wall, names


def about(report):
    try:
        with open(report.removesuffix(".json") + ".about") as f:
            return json.load(f)
    except OSError:
        return {}


def summary(found):
    count = collections.Counter(v.state for v in found.values())
    return ", ".join(f"{count[s]} {s}" for s in sorted(count, key=lambda s: (s != "passed", s)))


def text(reports):
    found, wall, _ = verdicts(reports)
    for name, v in sorted(found.items(), key=lambda item: (item[1].state, item[0])):
        print(f"{v.state:9} {v.seconds:7.1f}  {name}")
        if v.why:
            print("                   # " + v.why)
    spent = sum(v.seconds for v in found.values())
    print(f"total: {summary(found)}; {spent:.0f} s in specs, {wall:.0f} s of wall time")


def checks(reports):
    for name, v in sorted(verdicts(reports)[0].items()):
        if v.state == "passed":
            print(f"ok - e2e: {short(name)}")
        elif v.state != "skipped":
            print(f"not ok - e2e: {short(name)}: {v.state}: {v.why}")


def machine():
    model = "an unknown processor"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    return f"{os.cpu_count()} cores of {model}, Linux {os.uname().release}"


def tell_about(subject, repo):
    commit = subprocess.run(["git", "-C", repo, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    print(json.dumps({
        "subject": subject,
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
    }))


def reasons(path):
    """Lines of `regex TAB reason`, in their order."""
    with open(path) as f:
        lines = [line.rstrip("\n") for line in f if line.strip() and not line.startswith("#")]
    return [(re.compile(pattern), reason) for pattern, reason in (line.split("\t", 1) for line in lines)]


def reason_of(name, known):
    return next((reason for pattern, reason in known if pattern.search(name)), None)


def kept(page, title):
    """What a page of this form says of a subject: name -> Verdict, and since when."""
    with open(page) as f:
        lines = f.read().splitlines()
    date = next((match[1] for line in lines if (match := re.search(r"· (\S+ \S+ UTC) ·", line))), "")
    found, titles, name = {}, [], None
    for line in lines:
        said = re.match(rf"- {re.escape(title)}: .* \(of (.+)\)\.$", line)
        row = re.match(r"\| (.+?) \| (\S.*) \|$", line)
        why = re.match(rf"  - {re.escape(title)}, (\S+): `(.*)`$", line)
        if said:
            date = said[1]
        elif row and row[1] == "spec":
            titles = row[2].split(" | ")
        elif row and title in titles:
            verdict = re.match(r"(\w+) (\S+) s$", row[2].split(" | ")[titles.index(title)])
            if verdict:
                found["[sig-network] " + row[1].replace("\\|", "|")] = Verdict(verdict[1], float(verdict[2]), "", "")
        elif line.startswith("- "):
            name = next((n for n in found if line[2:].startswith(short(n))), None)
        elif why and name:
            found[name] = found[name]._replace(why=why[2])
    return found, date


def markdown(root, causes_file, left_out_file, page):
    causes, left_out = reasons(causes_file), reasons(left_out_file)
    tables, runs, there_are, since = {}, [], set(), {}
    for subject, _ in SUBJECTS:
        reports = [p for p in glob.glob(f"{root}/{subject}/*.json") if not p.endswith("/list.json")]
        reports.sort(key=os.path.getmtime)
        tables[subject], _, names = verdicts(reports)
        there_are |= names
        runs += [about(p) for p in reports]
    for subject, title in SUBJECTS:
        if not tables[subject] and os.path.exists(page):
            tables[subject], since[subject] = kept(page, title)
    last = max(runs, key=lambda run: run.get("date", ""), default={})
    commits = {s: sorted({r["commit"] for r in runs if r.get("subject") == s}) for s, _ in SUBJECTS}
    print("# Upstream's e2e suite: sig-network\n")
    print(f"{last.get('machine', '')} · {last.get('date', '')} · commit {', '.join(commits['fairlead']) or 'none'}\n")
    print("Kubernetes' own e2e.test against the cluster of `tests/cluster`: 3 nodes (6 for what needs two a zone), dual-stack, the suite in the outside client, "
          "a stand-in for a cloud's load balancer. "
          "Fairlead is the only data plane and DNS, deployed by its chart; the rival is kube-proxy (nftables, with its alpha proxy for NodePorts on "
          "localhost turned on) with CoreDNS. `make e2e` writes this page from stored reports; the last verdict on a spec counts. Seconds are the spec's own, with "
          "several running at once.\n")
    for subject, title in SUBJECTS:
        then = f" (of {since[subject]})" if tables[subject] and subject in since else ""
        print(f"- {title}: {summary(tables[subject]) or 'not run'}{then}.")
    ran = set().union(*tables.values())
    left = collections.Counter(reason_of(name, left_out) for name in there_are - ran)
    print(f"\nOf {len(there_are)} specs {len(there_are) - len(ran)} are not in the table:\n")
    for reason in [reason for _, reason in left_out if left[reason]]:
        print(f"- {left[reason]}: {reason}")
    if left[None]:
        print(f"- {left[None]}: not run yet")
    print("\n| spec | " + " | ".join(title for _, title in SUBJECTS) + " |\n|---|---|---|")
    names = sorted(ran)
    for name in names:
        print(f"| {short(name)} | " + " | ".join(cell(tables[s].get(name)) for s, _ in SUBJECTS) + " |")
    print("\n## Not passed, or not at first\n")
    for name in names:
        said = [(title, tables[s][name]) for s, title in SUBJECTS if name in tables[s] and tables[s][name].why]
        if not said:
            continue
        cause = reason_of(name, causes)
        print(f"- {short(name)}" + (f": **{cause}**" if cause else ""))
        for title, v in said:
            print(f"  - {title}, {v.state}: `{v.why.replace('`', chr(39))}`")


def short(name):
    return name.removeprefix("[sig-network] ").replace("|", "\\|")


def cell(v):
    return "not run" if v is None else f"{v.state} {v.seconds:.1f} s"


match sys.argv[1:]:
    case ["--about", subject, repo]:
        tell_about(subject, repo)
    case ["--text", *reports] if reports:
        text(reports)
    case ["--checks", *reports] if reports:
        checks(reports)
    case ["--markdown", root, causes_file, left_out_file, page]:
        markdown(root, causes_file, left_out_file, page)
    case _:
        sys.exit(__doc__)
