#!/usr/bin/env python3
"""relabel.py IN.tar OUT.tar NAME [--foreign]: the same OCI image with one more label, so under another digest, called NAME.

--foreign: its program's header says another architecture, as if a mirror had served the wrong image.
"""
import gzip
import hashlib
import io
import json
import sys
import tarfile


def main():
    source, target, name, *foreign = sys.argv[1:]
    with tarfile.open(source) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    index = json.loads(files["index.json"])
    manifest_at = index["manifests"][0]
    manifest = json.loads(files.pop(blob(manifest_at["digest"])))
    config = json.loads(files.pop(blob(manifest["config"]["digest"])))
    config.setdefault("config", {}).setdefault("Labels", {})["relabelled"] = name
    if foreign == ["--foreign"]:
        make_foreign(files, manifest["layers"][-1], config)
    manifest["config"].update(put(files, config))
    manifest_at.update(put(files, manifest))
    manifest_at["annotations"] = {
        "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index["manifests"] = [manifest_at]
    files["index.json"] = json.dumps(index).encode()
    files.pop("manifest.json", None)  # of docker save; it would name the old ones
    with tarfile.open(target, "w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def make_foreign(files, layer, config):
    packed = files.pop(blob(layer["digest"]))
    is_gzip = packed[:2] == b"\x1f\x8b"
    data = bytearray(gzip.decompress(packed) if is_gzip else packed)
    at = data.index(b"\x7fELF") + 18  # e_machine
    data[at:at + 2] = (243 if data[at] != 243 else 62).to_bytes(2, "little")  # EM_RISCV, EM_X86_64
    config["rootfs"]["diff_ids"][-1] = "sha256:" + hashlib.sha256(data).hexdigest()
    data = gzip.compress(bytes(data), 1) if is_gzip else bytes(data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    files[blob(digest)] = data
    layer.update({"digest": digest, "size": len(data)})


def blob(digest):
    return "blobs/" + digest.replace(":", "/")


def put(files, value):
    data = json.dumps(value).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    files[blob(digest)] = data
    return {"digest": digest, "size": len(data)}


main()
