#!/usr/bin/python3
"""Prints what the binary is made of as CycloneDX 1.6 JSON, by cargo's own metadata. The same tree gives the same bytes."""

import json
import subprocess
import sys
import uuid

METADATA = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]


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


def checksums():
    """By name and version, from Cargo.lock: metadata has none."""
    found = {}
    for block in open("Cargo.lock", encoding="utf-8").read().split("[[package]]")[1:]:
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line and not line.startswith(" "))
        found[fields["name"].strip('"'), fields["version"].strip('"')] = fields.get("checksum", "").strip('"')
    return found


def main():
    metadata = json.loads(subprocess.run(METADATA, check=True, capture_output=True).stdout)
    sums = checksums()
    packages = {package["id"]: package for package in metadata["packages"]}
    for package in packages.values():
        package["checksum"] = sums.get((package["name"], package["version"]))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    reached, queue = {}, [root]
    while queue:
        at = queue.pop()
        if at in reached:
            continue
        # What only tests or build scripts need is not in the binary.
        kinds = {dep["pkg"]: {kind["kind"] for kind in dep["dep_kinds"]} for dep in nodes[at]["deps"]}
        reached[at] = sorted(pkg for pkg, kind in kinds.items() if None in kind)
        queue += reached[at]
    parts = sorted((packages[at] for at in reached if at != root), key=lambda p: (p["name"], p["version"]))
    links = sorted(
        ({"ref": purl(packages[at]), "dependsOn": sorted(purl(packages[to]) for to in deps)} for at, deps in reached.items()),
        key=lambda link: link["ref"],
    )
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(packages[root])},
        "components": [component(package) for package in parts],
        "dependencies": links,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))
    bom = {"bomFormat": bom.pop("bomFormat"), "specVersion": bom.pop("specVersion"), "serialNumber": f"urn:uuid:{serial}", **bom}
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
