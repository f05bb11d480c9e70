#!/usr/bin/env python3
"""Writes one OCI image, under several names if wanted, as a tar that `ctr images import` takes.

mkimage.py -o OUT.tar --name REF [--name REF] --layer DIR_OR_TAR [...] [--entrypoint COMMAND] [--cmd COMMAND]
Layers are stored uncompressed: they are unpacked on the same machine a moment later.
"""
import argparse
import hashlib
import io
import json
import os
import platform
import shlex
import subprocess
import tarfile
import tempfile

MEDIA = "application/vnd.oci.image."
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(args.out))) as scratch:
        layers = [layer(source, os.path.join(scratch, f"{i}.tar")) for i, source in enumerate(args.layer)]
        config = encoded({
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": args.entrypoint,
                "Cmd": args.cmd,
                "User": args.user,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for _, digest, _ in layers]},
        })
        manifest = encoded({
            "schemaVersion": 2,
            "mediaType": MEDIA + "manifest.v1+json",
            "config": descriptor("config.v1+json", config),
            "layers": [{"mediaType": MEDIA + "layer.v1.tar", "digest": "sha256:" + digest, "size": size}
                       for _, digest, size in layers],
        })
        index = encoded({
            "schemaVersion": 2,
            "mediaType": MEDIA + "index.v1+json",
            "manifests": [descriptor("manifest.v1+json", manifest, name) for name in args.name],
        })
        whole = args.out + ".new"
        with tarfile.open(whole, "w") as out:
            for path, data in [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index),
                               (blob(config), config), (blob(manifest), manifest)]:
                info = tarfile.TarInfo(path)
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
            for digest, path in {digest: path for path, digest, _ in layers}.items():
                out.add(path, "blobs/sha256/" + digest)
        os.replace(whole, args.out)


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--name", action="append", required=True)
    p.add_argument("--layer", action="append", required=True)
    p.add_argument("--entrypoint", type=shlex.split, default=[])
    p.add_argument("--cmd", type=shlex.split, default=[])
    p.add_argument("--user", default="")
    return p.parse_args()


def layer(source, scratch):
    """A layer's path, digest and size; a directory is packed the same way each time."""
    path = source
    if os.path.isdir(source):
        path = scratch
        subprocess.run(["tar", "--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0",
                        "-C", source, "-cf", path, "."], check=True)
    with open(path, "rb") as f:
        return path, hashlib.file_digest(f, "sha256").hexdigest(), os.path.getsize(path)


def encoded(value):
    return json.dumps(value).encode()


def blob(data):
    return "blobs/sha256/" + hashlib.sha256(data).hexdigest()


def descriptor(kind, data, name=None):
    d = {"mediaType": MEDIA + kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}
    if name:
        d["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    return d


main()
