#!/usr/bin/python3
"""Prints what the binary is made of as CycloneDX 1.6 JSON, by cargo's own metadata: the kernel programs in it, the standard
library and the C library included. What only made it (procedural macros and what they need) has the scope "excluded". The same
tree and compiler give the same bytes. ARCH=arm64 (or amd64): of the binary for such machines."""

import json
import os
import subprocess
import sys
import uuid

# Of Debian's names for machines, as in tools/release.sh.
TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
METADATA = ["cargo", "metadata", "--locked", "--format-version", "1", "--features", "fairlead-ebpf/program"]


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package):
    made = {
        "type": "application" if package["name"] == "fairlead" else "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package["license"]:
        # Cargo allows a slash where SPDX wants OR.
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["checksum"]:
        made["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
    return made


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def system(compiler, machine):
    """What is linked in and no crate: the compiler's library, and the C library of a static binary."""
    rust = {"name": "rust-std", "version": compiler["release"], "purl": f"pkg:generic/rust-std@{compiler['release']}"}
    debian = next(arch for arch, target in TARGETS.items() if target == machine)
    # What a cross compiler links is a package of this machine's.
    name, arch = ("libc6-dev", debian) if machine == compiler["host"] else (f"libc6-dev-{debian}-cross", "all")
    version = run("dpkg-query", "-W", "-f=${Version}", name if arch == "all" else f"{name}:{arch}")
    libc = {"name": name, "version": version, "purl": f"pkg:deb/debian/{name}@{version}?arch={arch}"}
    for part, licence in ((rust, "MIT OR Apache-2.0"), (libc, "LGPL-2.1-or-later")):
        yield {"type": "library", "bom-ref": part["purl"], **part, "licenses": [{"expression": licence}]}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def checksums():
    """By name and version, from Cargo.lock: metadata has none."""
    found = {}
    for block in open("Cargo.lock", encoding="utf-8").read().split("[[package]]")[1:]:
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line and not line.startswith(" "))
        found[fields["name"].strip('"'), fields["version"].strip('"')] = fields.get("checksum", "").strip('"')
    return found


def main():
    compiler = dict(line.split(": ", 1) for line in run("rustc", "-vV").splitlines() if ": " in line)
    wanted = os.environ.get("ARCH")
    if wanted and wanted not in TARGETS:
        sys.exit(f"sbom: ARCH={wanted} cannot be built for: say ARCH={' or ARCH='.join(TARGETS)}, or leave ARCH out")
    machine = TARGETS[wanted] if wanted else compiler["host"]
    metadata = json.loads(run(*METADATA, "--filter-platform", machine))
    sums = checksums()
    packages = {package["id"]: package for package in metadata["packages"]}
    for package in packages.values():
        package["checksum"] = sums.get((package["name"], package["version"]))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    reached, within, queue = {}, set(), [(root, True)]
    while queue:
        at, is_within = queue.pop()
        # A macro runs in the compiler, and so does all it depends on.
        is_within = is_within and not is_macro(packages[at])
        if at in reached and (at in within or not is_within):
            continue
        within |= {at} if is_within else set()
        # What only tests or build scripts need is not in the binary.
        kinds = {dep["pkg"]: {kind["kind"] for kind in dep["dep_kinds"]} for dep in nodes[at]["deps"]}
        reached[at] = sorted(pkg for pkg, kind in kinds.items() if None in kind)
        queue += [(to, is_within) for to in reached[at]]
    parts = sorted((packages[at] for at in reached if at != root), key=lambda p: (p["name"], p["version"]))
    scopes = {at: "required" if at in within else "excluded" for at in reached}
    links = sorted(
        ({"ref": purl(packages[at]), "dependsOn": sorted(purl(packages[to]) for to in deps)} for at, deps in reached.items()),
        key=lambda link: link["ref"],
    )
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(packages[root])},
        "components": [*({**component(p), "scope": scopes[p["id"]]} for p in parts), *system(compiler, machine)],
        "dependencies": links,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))
    bom = {"bomFormat": bom.pop("bomFormat"), "specVersion": bom.pop("specVersion"), "serialNumber": f"urn:uuid:{serial}", **bom}
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
