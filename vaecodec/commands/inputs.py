"""What `vaecodec encode` is given: a picture, or a data set for a model of images of one size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaecodec.commands import files
from vaecodec.errors import ImageError

if TYPE_CHECKING:
    from vaecodec.bundle import Bundle
    from vaecodec.codec import Codec
    from vaecodec.datasets import Images
    from vaecodec.picture import Picture, Samples
    from vaecodec.search import Search
    from vaecodec.targets import Target
    from vaecodec.tuning import Met

__all__ = ["Source", "bundle_of", "default_output", "describe", "read", "read_mask"]


@dataclass(frozen=True, eq=False)
class Source:
    """An input of encoding.

    images: uint8 (N, H, W, 1 or 3). picture: the image with what belongs to it; None where the
    input is a data set. file_size: in bytes; None for what is no file of its own.
    """

    path: Path
    images: Images
    picture: Picture | None
    file_size: int | None

    def __str__(self) -> str:
        """What it is, for reports."""
        size = describe(*self.images.shape[:3])
        return size if self.file_size is None else f"{size}, {self.file_size:,} bytes"

    def stripped(self) -> Source:
        """Return it without the metadata of a picture; a data set has none."""
        from vaecodec.picture import strip

        return self if self.picture is None else self._of(strip(self.picture))

    def fitted(self, fit: str | None, bundle: Bundle) -> Source:
        """Return it in the size that a model takes, by a function of `vaecodec.fitting`, if any."""
        from vaecodec import fitting

        if fit is None:
            return self
        if bundle.image_shape is None:
            raise click.ClickException(f"{bundle.name} takes images of any size; leave out --{fit}")
        change: fitting.Change = getattr(fitting, fit)
        height, width, _ = bundle.image_shape
        with files.named(self.path):
            if self.picture is not None:
                return self._of(fitting.changed(self.picture, change, height, width))
            return Source(self.path, change(self.images, height, width), None, self.file_size)

    def encode(
        self, codec: Codec, quality: float | None, search: Search | None, mask: Samples | None
    ) -> bytes:
        """Return a .vz file."""
        with files.named(self.path):
            if self.picture is None:
                if search is not None:
                    raise ImageError("an effort was asked for a data set; it is for one image")
                if mask is not None:
                    raise ImageError("a mask was given for a data set; it is for one image")
                return codec.encode_images(self.images, quality)
            return codec.encode(self.picture, quality, search=search, roi=mask)

    def encode_to(
        self, codec: Codec, target: Target, search: Search | None, mask: Samples | None
    ) -> Met:
        """Return a .vz file that meets a target, and how well."""
        with files.named(self.path):
            if self.picture is None:
                raise ImageError(f"{target} was asked for a data set; targets are for one image")
            return codec.encode_to(self.picture, target, search, mask)

    def _of(self, picture: Picture) -> Source:
        return Source(self.path, picture.pixels[None], picture, self.file_size)


def read(path: Path, bundle: Bundle) -> Source:
    """Return an input: an image file, an idx file, a zip or a folder of images, or stdin.

    Raises ImageError for what is none, and for a data set where `bundle` is not of one size.
    """
    from vaecodec import datasets, images

    if path.is_dir() or _is_within(path, bundle):
        with files.named(path):
            _check_takes_data_sets(bundle)
        return Source(path, datasets.read_images(path), None, None)
    data = files.read(path)
    with files.named(path):
        if datasets.is_dataset(data[: datasets.HEAD]):
            _check_takes_data_sets(bundle)
            return Source(path, datasets.parse(data), None, len(data))
        picture = images.read(io.BytesIO(data))
        return Source(path, picture.pixels[None], picture, len(data))


def read_mask(path: Path) -> Samples:
    """Return the brightness of an image file, uint8 (H, W)."""
    from vaecodec import images

    pixels = images.read(path).pixels
    mask: Samples = pixels.mean(2).round().astype("uint8")
    return mask


def _is_within(path: Path, bundle: Bundle) -> bool:
    """Return whether a path may be that of a folder within a zip, where the model takes one."""
    return path != files.STREAM and bundle.image_shape is not None and not path.exists()


def _check_takes_data_sets(bundle: Bundle) -> None:
    if bundle.image_shape is None:
        raise ImageError(f"a data set or a directory; {bundle.name} takes one image, of any size")


def default_output(source: Path) -> Path:
    """Return the name of the .vz beside an input; that of a folder ends in .vz, too."""
    if source != files.STREAM and source.is_dir() and source.name:
        return source.with_name(f"{source.name}.vz")
    return files.beside(source, ".vz")


def bundle_of(fingerprint: bytes, place: Path | None) -> Bundle:
    """Return the bundle that a file names, looked for in `place`, a name or a directory, if given.

    Raises ModelError where it is not there.
    """
    from vaecodec.bundle import find, find_fingerprint

    if place is not None and not place.is_dir():
        place = find(str(place)).path  # a name, perhaps; else this says which there are
    return find_fingerprint(fingerprint, place)


def describe(number: int, height: int, width: int) -> str:
    """Return "28x28", or "10,000 images of 28x28"."""
    return f"{width}x{height}" if number == 1 else f"{number:,} images of {width}x{height}"
