"""Packed bundles: the files of a bundle in one .vzm file, to send along; and how both are read.

Section "Packed bundles" of docs/format.md. What is read may come from anyone: names and sizes are
checked before contents, and no more is read than the limits allow, whatever is stated.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from vaecodec.bundle import Bundle
from vaecodec.errors import ModelError
from vaecodec.manifest import is_plain_name
from vaecodec.places import MANIFEST

__all__ = ["BESIDE", "SUFFIX", "check", "check_directory", "files_of", "pack", "read"]

SUFFIX = ".vzm"
BESIDE = ("README.md", "results.tsv")
"""What may lie beside the files that a manifest names: the card, and what was measured."""

MAX_FILES = 32
MAX_BYTES = 32 << 20
"""Of all files together; an export has 12 MB at most."""

MAX_MANIFEST = 1 << 20  # bytes, of which photo-1's has 4,000
MAX_ENTRIES = 1024  # of any zip file in a bundle
_END = struct.Struct("<4s4H2IH")  # the last record of a zip file, without a comment
_END_64 = b"PK\x06\x07"
_END_64_BYTES = 20
_ENTRY_BYTES = 512  # of the directory of a zip file, for each entry at most
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can state


def files_of(bundle: Bundle) -> dict[str, bytes]:
    """Return the files that lie in the directory of a bundle and belong to it, by name.

    A bundle that builds on another has fewer than its manifest names.
    """
    names = sorted({MANIFEST, *BESIDE, *bundle.manifest["files"]})
    found = (bundle.path / name for name in names)
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the packed file of a bundle's files; the same files make the same bytes."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(files.items()):
            info = ZipInfo(name, _TIME)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content, ZIP_DEFLATED, 9)
    return buffer.getvalue()


def read(source: Path) -> dict[str, bytes]:
    """Return the files that a directory or a packed file holds, by name; nothing of them is known.

    Raises ModelError where it holds what no bundle does: more or larger files than the limits
    allow, links, folders, names that are no plain names; and where a packed file is damaged.
    """
    if source.is_dir() and not (source / MANIFEST).is_file():
        raise ModelError(f"{source} is no model bundle: it has no {MANIFEST}")
    with _refusals(source):
        files = _from_folder(source) if source.is_dir() else _from_file(source)
        return _limited(files)


def check(data: bytes, source: Path) -> None:
    """Raise ModelError, about `source`, unless `read` takes a packed file of these bytes."""
    with _refusals(source):
        _limited(_unpack(_whole(data)))


@contextmanager
def _refusals(source: Path) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, ValueError, NotImplementedError, EOFError, zlib.error, struct.error) as why:
        raise ModelError(f"{source} is refused: {str(why) or 'it is cut off'}") from why


def _limited(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files; ValueError where their manifest is too large to be looked at."""
    if len(files.get(MANIFEST, b"")) > MAX_MANIFEST:
        raise ValueError(f"its {MANIFEST} has more than {_told(MAX_MANIFEST)}")
    return files


def _from_folder(folder: Path) -> dict[str, bytes]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    _check_number(len(found))
    files: dict[str, bytes] = {}
    for entry in found:
        if not entry.is_file(follow_symlinks=False):
            raise ValueError(f"{entry.name!r:.60} in it is no plain file")
        with (folder / entry.name).open("rb") as stream:
            files[entry.name] = stream.read(MAX_BYTES + 1)
        if sum(map(len, files.values())) > MAX_BYTES:
            raise ValueError(f"its files have more than {_told(MAX_BYTES)}")
    return files


def _from_file(file: Path) -> dict[str, bytes]:
    with file.open("rb") as stream:
        return _unpack(_whole(stream.read(MAX_BYTES + 1)))


def _whole(data: bytes) -> bytes:
    """Return the bytes of a packed file; ValueError where there are too many."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {_told(MAX_BYTES)}")
    return data


def _unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of a packed file; ValueError, or what zipfile raises, where it is not one.

    Sizes are checked as they are stated; zipfile reads no more than that, and compares CRC-32.
    """
    check_directory(data)
    with ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        _check_number(len(entries))
        for entry in entries:
            _check_entry(entry)
        if len({entry.filename.casefold() for entry in entries}) < len(entries):
            raise ValueError("a name occurs twice in it")
        if sum(entry.file_size for entry in entries) > MAX_BYTES:
            raise ValueError(f"unpacked it has more than {_told(MAX_BYTES)}")
        files = {}
        for entry in entries:
            with archive.open(entry) as stream:
                files[entry.filename] = stream.read(entry.file_size + 1)
            if len(files[entry.filename]) != entry.file_size:
                raise ValueError(f"{entry.filename!r:.60} has another size than is stated")
    return files


def check_directory(data: bytes) -> None:
    """Raise ValueError unless a zip file ends in a directory of so many entries as can be read.

    A library reads the whole directory before anything can be asked of it.
    """
    if len(data) < _END.size:
        raise ValueError("it is no zip file")
    mark, *_, entries, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if mark != b"PK\x05\x06" or comment or start + size + _END.size != len(data):
        raise ValueError("it is no zip file, is cut off, or has something behind or before it")
    if data[-_END.size - _END_64_BYTES :].startswith(_END_64):
        raise ValueError("it is a zip file of the kind that is made for more than 4 GB")
    if entries > MAX_ENTRIES or size > _ENTRY_BYTES * max(entries, 1):
        raise ValueError(f"its directory states {entries} files in {size} bytes")


def _check_entry(entry: ZipInfo) -> None:
    name = f"{entry.filename!r:.60}"
    if not is_plain_name(entry.filename) or entry.filename != entry.orig_filename:
        raise ValueError(f"{name} in it is no plain file name")
    if (kind := stat.S_IFMT(entry.external_attr >> 16)) not in (0, stat.S_IFREG):
        raise ValueError(f"{name} in it is no plain file but of kind {kind:o}")
    if entry.flag_bits & 1 or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} in it is encrypted, or packed in an unusual way")


def _check_number(number: int) -> None:
    if number > MAX_FILES:
        raise ValueError(f"it has {number} files; a bundle has {MAX_FILES} at most")


def _told(size: int) -> str:
    return f"{size >> 20} MiB"
