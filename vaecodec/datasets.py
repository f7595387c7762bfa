"""Data sets: many images of one size, from an idx file, a zip or a folder, as one array.

idx is the format of MNIST: 0, 0, a type (8: bytes), the number of dimensions, each dimension as a
big-endian u32, the bytes. Images are (N, H, W), labels are (N,); colour images are (N, H, W, 3),
which idx allows and MNIST has no use for. An idx file may be gzipped, and is known by its first
bytes, not by its name.

What is read is untrusted: sizes are checked before anything is allocated or unpacked on their word.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from vaecodec import images
from vaecodec.errors import ImageError
from vaecodec.formats import SUFFIXES
from vaecodec.picture import Picture, check_size

__all__ = ["HEAD", "Images", "is_dataset", "parse", "read_images", "read_labels", "write_idx"]

Images = NDArray[np.uint8]
"""uint8 (N, H, W, C): N images, C is 1 for grey or 3 for RGB."""

HEAD = 1024
"""Bytes of a file that tell whether it is a data set."""

_BYTES = b"\0\0\x08"  # how an idx file of bytes begins
_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second has no files in it
_PIECE = 1 << 20  # bytes that are unpacked at once
_MAX_FILE = 1 << 28  # bytes of an image file in a zip

Named = tuple[str, Callable[[], bytes]]
"""A file of a folder or a zip: its path within, and how to read it."""


def is_dataset(head: bytes) -> bool:
    """Return whether a file is one that `parse` reads, from its first HEAD bytes (or all of it).

    It may be damaged all the same. No image of a kind that Pillow reads begins like this.
    """
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, len(_BYTES))
        except zlib.error:
            return False
    return head.startswith((_BYTES, *_ZIP))


def read_images(path: str | Path) -> Images:
    """Return the images of an idx file, a zip, a folder, or a folder within a zip.

    The last is named by its path, such as cifar10.zip/test. Of zips and folders, the image files
    (by suffix) at any depth are read in the order of their paths; where one is in colour, all are.
    Their alpha, metadata and profiles are left out.

    Raises:
        ImageError: it is no data set, damaged, too large (400 million pixels), or its images are
            of several sizes or not opaque; names the file.
        OSError: it cannot be read.
    """
    path = Path(path)
    with _errors_name(path):
        if path.is_file():
            return parse(path.read_bytes())
        with _files(path) as files:
            return _stacked(files)


def parse(data: bytes) -> Images:
    """Return the images of an idx file, gzipped or not, or of a zip; errors as `read_images`."""
    if data.startswith(_ZIP):
        return _stacked(_unzipped(io.BytesIO(data)))
    return _image_array(_unpacked(data))


def read_labels(path: str | Path) -> NDArray[np.uint8]:
    """Return one label for each image, uint8 (N,).

    They are those of an idx file of labels; for zips and folders, as `read_images` takes them, the
    number of the folder that holds the image, among such folders in the order of their paths.
    Raises as `read_images`.
    """
    path = Path(path)
    with _errors_name(path):
        if path.is_file() and not _head(path).startswith(_ZIP):
            return _read_idx(_unpacked(path.read_bytes()), _check_labels)
        with _files(path) as files:
            return _numbered([str(PurePosixPath(name).parent) for name, _ in files])


def write_idx(pixels: Images) -> bytes:
    """Return an idx file of images, uint8 (N, H, W, C): (N, H, W) where C is 1, else all four."""
    shape = pixels.shape[:3] if pixels.shape[3] == 1 else pixels.shape
    head = _BYTES + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return head + np.ascontiguousarray(pixels).tobytes()


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


# idx


def _image_array(stream: BinaryIO) -> Images:
    array = _read_idx(stream, _check_images)
    return array[..., np.newaxis] if array.ndim == 3 else array


def _read_idx(stream: BinaryIO, check: Callable[[Sequence[int]], None]) -> NDArray[np.uint8]:
    """Return the array of an idx file whose shape passes `check`, and nothing behind it."""
    try:
        head = _read(stream, 4)
        if not head.startswith(_BYTES):
            raise ImageError(
                "not a data set: neither an idx file of bytes (00 00 08 ...) nor a zip"
            )
        shape = struct.unpack(f">{head[3]}I", _read(stream, 4 * head[3]))
        check(shape)
        array = np.frombuffer(_read(stream, prod(shape)), np.uint8).reshape(shape)
        if stream.read(1):
            raise ImageError(f"there are bytes behind the last of {shape[0]}; the file is damaged")
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"the gzip data are damaged or cut off: {error}") from error
    return array


def _check_images(shape: Sequence[int]) -> None:
    if len(shape) == 1:
        raise ImageError("an idx file of labels; one of images was expected")
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise ImageError(f"an idx file of shape {shape!s:.60}; (N, H, W) or (N, H, W, 3) expected")
    check_size(shape[2], shape[1], shape[0])


def _check_labels(shape: Sequence[int]) -> None:
    if len(shape) != 1:
        raise ImageError(f"an idx file of {len(shape)} dimensions; labels have one")
    check_size(1, 1, shape[0])  # as many labels as there can be images


def _unpacked(data: bytes) -> BinaryIO:
    """Return a stream of what a file holds, gzipped or not."""
    stream = io.BytesIO(data)
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if data.startswith(_GZIP) else stream


def _read(stream: BinaryIO, size: int) -> bytearray:
    """Return `size` bytes; piece by piece, so that memory is taken for what is there only."""
    found = bytearray()
    while piece := stream.read(min(size - len(found), _PIECE)):
        found += piece
    if len(found) < size:
        raise ImageError(f"the idx file ends {size - len(found)} bytes too early; it was cut off")
    return found


# Zips and folders


@contextmanager
def _files(path: Path) -> Iterator[list[Named]]:
    """Yield the image files of a zip, of a folder, or of a folder within a zip."""
    place = next((p for p in (path, *path.parents) if p.exists()), path)
    if place == path and path.is_dir():
        found = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        yield [(name, found[name].read_bytes) for name in sorted(found) if _is_image(name)]
    elif place.is_file() and _head(place).startswith(_ZIP):
        with place.open("rb") as stream:
            inside = "" if place == path else f"{path.relative_to(place).as_posix()}/"
            yield _unzipped(stream, inside)
    else:
        path.stat()  # raises where there is no such file
        raise ImageError("not a data set: an idx file, a zip or a folder of images was expected")


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD)


def _unzipped(stream: BinaryIO, inside: str = "") -> list[Named]:
    """Return the image files of a zip whose paths begin with `inside`, named without it."""
    with _zip_errors():
        archive = zipfile.ZipFile(stream)
    members = sorted(archive.infolist(), key=lambda member: member.filename)
    return [
        (member.filename.removeprefix(inside), partial(_member, archive, member))
        for member in members
        if member.filename.startswith(inside) and _is_image(member.filename)
    ]


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > _MAX_FILE:
        raise ImageError(f"{member.file_size:,} bytes; the limit in a zip is {_MAX_FILE:,}")
    with _zip_errors():
        return archive.read(member)


@contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what zipfile raises for damage has no common root
        raise ImageError(f"the zip is damaged: {error}") from error


def _is_image(name: str) -> bool:
    """Return whether a path names an image file, and none that a system hides."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _stacked(files: Iterable[Named]) -> Images:
    pixels: list[Images] = []
    for name, read in files:
        with _errors_name(Path(name)):
            pixels.append(_opaque(images.read(io.BytesIO(read()))))
            _check_same_size(pixels[0], pixels[-1])
            check_size(pixels[0].shape[1], pixels[0].shape[0], len(pixels))
    if not pixels:
        raise ImageError(f"it has no image: no file in it ends in {', '.join(SUFFIXES)}")
    colours = max(image.shape[2] for image in pixels)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], colours)) for image in pixels])


def _opaque(picture: Picture) -> Images:
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise ImageError("it has transparent pixels; the images of a data set are opaque")
    return picture.pixels


def _check_same_size(first: Images, image: Images) -> None:
    if image.shape[:2] != first.shape[:2]:
        (height, width), (wanted_height, wanted_width) = image.shape[:2], first.shape[:2]
        raise ImageError(
            f"{width}x{height} pixels, and the first image has {wanted_width}x{wanted_height}; "
            "the images of a data set are of one size"
        )


def _numbered(folders: Sequence[str]) -> NDArray[np.uint8]:
    numbers = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    if not 1 <= len(numbers) <= 256:
        raise ImageError(f"images in {len(numbers)} folders; labels for 1 to 256 were expected")
    return np.array([numbers[folder] for folder in folders], np.uint8)
