#!/usr/bin/env python3
"""Writes Fairlead's container image as an OCI layout in a tar, without a daemon: `ctr images import` and `skopeo copy
oci-archive:` take it. The same input gives the same bytes.

    tools/image.py BINARY OUT.tar --name ghcr.io/fairlead/fairlead:1.2.3 --revision COMMIT --version 1.2.3

Two layers: what hardly ever changes (users, certificates, directories), and the binary. No shell, no package manager.
"""

import argparse
import gzip
import hashlib
import io
import json
import pathlib
import struct
import sys
import tarfile

# e_machine in the ELF header -> GOARCH, as image configurations name it.
ARCHITECTURES = {62: "amd64", 183: "arm64"}
PT_INTERP = 3
# Group and user of what needs no rights; "nonroot" of distroless images has the same number.
USER = 65532
CERTIFICATES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAM = "usr/local/bin/fairlead"
LICENCE = pathlib.Path(__file__).resolve().parent.parent / "LICENSE"

PASSWD = f"""root:x:0:0:root:/:/sbin/nologin
fairlead:x:{USER}:{USER}:fairlead:/:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
GROUP = f"""root:x:0:
fairlead:x:{USER}:
nobody:x:65534:
"""
# Names of /etc/hosts before the name server, as everywhere.
NSSWITCH = "hosts: files dns\n"


class Refused(Exception):
    """What cannot be made into an image, and why."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--name", action="append", required=True, help="may be given more than once")
    parser.add_argument("--revision", required=True, help="the commit it was built from")
    parser.add_argument("--version", required=True)
    args = parser.parse_args()
    try:
        binary = args.binary.read_bytes()
        architecture = architecture_of(binary)
        certificates = read_certificates()
    except (OSError, Refused) as error:
        sys.exit(f"image: {error}")
    layers = [layer(base_files(certificates)), layer([(PROGRAM, 0o755, binary)])]
    labels = {
        "org.opencontainers.image.title": "fairlead",
        "org.opencontainers.image.description": "One data plane for a Kubernetes node: Services, DNS, Ingress",
        "org.opencontainers.image.source": "https://github.com/fairlead/fairlead",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": args.version,
        "org.opencontainers.image.revision": args.revision,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.out.with_suffix(".tmp")
    write_layout(unfinished, args.name, layers, architecture, labels)
    unfinished.replace(args.out)
    size = args.out.stat().st_size / (1 << 20)
    print(f"image: {args.out} ({size:.1f} MiB, linux/{architecture}): {' '.join(args.name)}")


def architecture_of(elf):
    """The architecture of a static little-endian ELF executable; anything else is no image of ours."""
    if len(elf) < 64 or elf[:4] != b"\x7fELF" or elf[4] != 2 or elf[5] != 1:
        raise Refused("the binary is no 64-bit little-endian ELF executable")
    machine = struct.unpack_from("<H", elf, 18)[0]
    if machine not in ARCHITECTURES:
        raise Refused(f"the binary is for ELF machine {machine}; images are made for amd64 and arm64")
    (table,) = struct.unpack_from("<Q", elf, 32)
    entry_size, entries = struct.unpack_from("<HH", elf, 54)
    kinds = [struct.unpack_from("<I", elf, table + i * entry_size)[0] for i in range(entries)]
    if PT_INTERP in kinds:
        raise Refused("the binary is linked dynamically and would not start in an image: use `make image`")
    return ARCHITECTURES[machine]


def read_certificates():
    if not CERTIFICATES.exists():
        raise Refused(f"{CERTIFICATES} is missing: install the package ca-certificates")
    return CERTIFICATES.read_bytes()


def base_files(certificates):
    """(path, mode, content) with `None` for directories; parents are added by `layer`."""
    return [
        ("etc/fairlead", 0o755, None),
        ("etc/group", 0o644, GROUP.encode()),
        ("etc/nsswitch.conf", 0o644, NSSWITCH.encode()),
        ("etc/passwd", 0o644, PASSWD.encode()),
        ("etc/ssl/certs/ca-certificates.crt", 0o644, certificates),
        ("licenses/LICENSE", 0o644, LICENCE.read_bytes()),
        ("run/fairlead", 0o755, None),
        ("tmp", 0o1777, None),
        ("var/lib/fairlead", 0o755, None),
    ]


def layer(files):
    """An uncompressed tar: sorted, owned by root, without times."""
    entries = {path: (mode, content) for path, mode, content in files}
    for path in list(entries):
        for parent in pathlib.PurePosixPath(path).parents:
            if str(parent) != ".":
                entries.setdefault(str(parent), (0o755, None))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(entries):
            mode, content = entries[path]
            info = tarfile.TarInfo(path)
            info.mode = mode
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def write_layout(out, names, layers, architecture, labels):
    blobs = {}

    def blob(media_type, data, **more):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    oci = "application/vnd.oci.image."
    compressed = [gzip.compress(tar, compresslevel=6, mtime=0) for tar in layers]
    config = blob(oci + "config.v1+json", encode({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": ["/" + PROGRAM],
            "Env": ["PATH=/usr/local/bin"],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]},
    }))
    manifest = encode({
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": config,
        "layers": [blob(oci + "layer.v1.tar+gzip", data) for data in compressed],
        "annotations": labels,
    })
    platform = {"architecture": architecture, "os": "linux"}
    index = encode({
        "schemaVersion": 2,
        "mediaType": oci + "index.v1+json",
        "manifests": [
            blob(oci + "manifest.v1+json", manifest, platform=platform, annotations={
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            })
            for name in names
        ],
    })
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
        add(tar, "index.json", index)
        for digest in sorted(blobs):
            add(tar, f"blobs/sha256/{digest}", blobs[digest])


def encode(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def add(tar, path, data):
    info = tarfile.TarInfo(path)
    info.mode = 0o644
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
