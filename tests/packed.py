"""Bundles to send, and what somebody might have done to them."""

import hashlib
import io
import json
import zipfile

import numpy as np

from vaecodec import packs
from vaecodec.bundle import fingerprint
from vaecodec.layouts import LAYOUTS


def files_in(folder):
    """The files of a bundle, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def signed(files, **entries):
    """The files with a manifest that states their hashes and fingerprint, as a forger would."""
    manifest = json.loads(files["manifest.json"]) | entries
    named = [name for name in files if name != "manifest.json"]
    manifest["files"] = {n: hashlib.sha256(files[n]).hexdigest() for n in named}
    layout, decoding = LAYOUTS[manifest["family"]], manifest["decoding"]
    decisive = [files.get(name, b"") for name in layout.files(decoding)]
    manifest["fingerprint"] = fingerprint(decoding, decisive).hex()
    return files | {"manifest.json": json.dumps(manifest).encode()}


def write(path, files):
    """Write the files as a packed one."""
    path.write_bytes(packs.pack(files))
    return path


def write_zip(path, *entries):
    """Write a zip file of (name or ZipInfo, content), whatever they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def arrays(content, **changes):
    """An .npz file with other arrays."""
    with np.load(io.BytesIO(content)) as file:
        changed = dict(file) | changes
    buffer = io.BytesIO()
    np.savez(buffer, **changed)
    return buffer.getvalue()
