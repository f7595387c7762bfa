"""encode() and decode(): the two mirrored paths between a picture and a .vz file.

What stands between pixels and the payloads of tiles is the model's (`vaecodec.families`).
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vaecodec import container, families
from vaecodec.bundle import DEFAULT_MODEL, Bundle, find, find_fingerprint
from vaecodec.container import Colour, Container, Header
from vaecodec.errors import FormatError, ImageError, ModelError, TargetError, TargetWarning
from vaecodec.families import Model, Regional
from vaecodec.packing import alpha_of, packer
from vaecodec.picture import Picture, check_size, from_array
from vaecodec.roi import QualityMap, map_of_mask, read_map
from vaecodec.runtime import resolve
from vaecodec.search import Search
from vaecodec.spending import Accountable
from vaecodec.stages import Watch, unwatched
from vaecodec.targets import Target
from vaecodec.transforms import positions
from vaecodec.tuning import Met, Trials, Tunable, meet, seek

if TYPE_CHECKING:
    from PIL.Image import Image

_START = 50.0
"""Quality at which the search for a target begins."""


class Codec:
    """A model made ready: encodes pictures and decodes files. Safe to use from several threads.

    model: a name, or the directory of a bundle. provider: "auto" (CUDA where it works, else the
    CPU), "cpu" or "cuda", for the transforms; priors run on the CPU always. threads: of each
    network, None for all cores. portable: do without the entropy coding library, for the same
    bytes. watch: told of every stage, for those who measure (`vaecodec.stages`). Raises ModelError
    and ProviderError.
    """

    def __init__(
        self,
        model: str | Path | Bundle = DEFAULT_MODEL,
        provider: str = "auto",
        threads: int | None = None,
        *,
        portable: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        self.bundle = model if isinstance(model, Bundle) else find(model)
        self.provider = resolve(provider)
        self.model = families.load(self.bundle, self.provider, threads, portable, watch)
        self._watch = watch

    def encode(
        self,
        image: Picture | Image | NDArray[np.uint8],
        quality: float | None = None,
        *,
        target: Target | None = None,
        search: Search | None = None,
        roi: NDArray[np.uint8] | None = None,
    ) -> bytes:
        """Return a .vz file of an image.

        image: a Pillow image, or uint8 (H, W), (H, W, 1 to 4): grey, with alpha, RGB, with alpha.
        quality: 0..100 in steps of 1/64, None for the model's default. target: in place of a
        quality, the size or likeness that decides it. search: how hard to look for a better file,
        None for the model's default. roi: a mask, uint8 (H, W), white where the quality holds and
        black where it is half the scale lower (`vaecodec.roi`).
        Raises ImageError, and ValueError for a quality out of range. Where a target cannot be met,
        issues TargetWarning or, as `Target` says, raises TargetError.
        """
        if target is not None:
            if quality is not None:
                raise ValueError(f"quality {quality:g} and {target} were asked for; one decides")
            met = self.encode_to(image, target, search, roi)
            if met.problem is not None:
                warnings.warn(met.problem, TargetWarning, stacklevel=2)
            return met.data
        picture = self._in_colours(as_picture(image))
        header = self._header(picture.pixels[None], quality)
        qualities = _qualities(picture, roi)
        tiles = self._model(qualities).encode(picture.pixels[None], header, search)
        return packer(picture, _asked(search, roi), qualities, self._watch)(header, tiles)

    def encode_to(
        self,
        image: Picture | Image | NDArray[np.uint8],
        target: Target,
        search: Search | None = None,
        roi: NDArray[np.uint8] | None = None,
    ) -> Met:
        """Return the .vz file of an image that meets a target, and how well; else as `encode`."""
        picture = self._in_colours(as_picture(image))
        qualities = _qualities(picture, roi)
        model = self._model(qualities)
        if not isinstance(model, Tunable):
            raise TargetError(
                f"{target} was asked for; {self.bundle.name} has a few qualities only, and no "
                "targets: ask for a quality"
            )
        header = self._header(picture.pixels[None], _START)
        y = model.analyse(picture.pixels)
        pack = packer(picture, target.settings() | _asked(search, roi), qualities, self._watch)
        trials = Trials(target, model, y, picture.pixels, header, pack)
        header = trials.header(seek(trials))
        better = model.refined(picture.pixels, y, header, search)
        if better is y:
            return meet(trials)
        return meet(Trials(target, model, better, picture.pixels, header, pack), trials)

    def encode_images(self, images: NDArray[np.uint8], quality: float | None = None) -> bytes:
        """Return a .vz file of images of one size, uint8 (N, H, W, 1 or 3); quality as in `encode`.

        Raises ImageError, also where N is not 1 and a file of the model holds one image.
        """
        images = self._images_in_colours(images)
        header = self._header(images, quality)
        tiles = self.model.encode(images, header, None)
        with self._watch("container"):
            return container.pack(Container(header, tuple(tiles)))

    def decode(self, data: bytes) -> Image:
        """Return the Pillow image (L, LA, RGB or RGBA) of a .vz file; metadata is in its `info`.

        Raises FormatError, and ModelError where the file was written with another model.
        """
        from vaecodec.images import to_pillow

        return to_pillow(self.decode_picture(data))

    def decode_picture(self, data: bytes) -> Picture:
        """Return the Picture of a .vz file; errors as in `decode`."""
        with self._watch("container"):
            file = container.unpack(data)
            alpha = alpha_of(file)
        if file.header.images != 1:
            raise FormatError(
                f"the file holds {file.header.images} images, not one; decode_images returns all"
            )
        pixels = self._decode(file)[0]
        return Picture(pixels, alpha, file.icc, file.exif, file.xmp)

    def decode_images(self, data: bytes) -> NDArray[np.uint8]:
        """Return all images of a .vz file, uint8 (N, H, W, 1 or 3), without alpha and metadata.

        Errors as in `decode`.
        """
        with self._watch("container"):
            file = container.unpack(data)
        return self._decode(file)

    def bits(self, data: bytes) -> NDArray[np.float64]:
        """Return the bits that each 16 x 16 pixels of a .vz file cost: (ceil(H/16), ceil(W/16)).

        Errors as in `decode`, and ModelError where the model keeps no such account.
        """
        file = container.unpack(data)
        model = self._model_of(file)
        if not isinstance(model, Accountable):
            raise ModelError(
                f"the bits of {self.bundle.name} belong to whole images, and not to places in them"
            )
        return model.bits(file.header, file.tiles)

    def _decode(self, file: Container) -> NDArray[np.uint8]:
        """Return the images of a file, uint8 (N, H, W, 1 or 3)."""
        return self._model_of(file).decode(file.header, file.tiles)

    def _model_of(self, file: Container) -> Model:
        """Return what decodes a file."""
        if file.header.model != self.bundle.fingerprint:
            find_fingerprint(file.header.model, self.bundle.path)  # raises: says which is needed
        if file.qualities is None:
            return self.model
        if not isinstance(self.model, Regional):
            raise FormatError(f"the file has a quality map; those of {self.bundle.name} have none")
        return self.model.mapped(read_map(file.qualities, *positions(file.header)))

    def _model(self, qualities: QualityMap | None) -> Model:
        """Return what encodes with a quality map, or without."""
        if qualities is None:
            return self.model
        if not isinstance(self.model, Regional):
            raise ImageError(
                f"a mask was given; {self.bundle.name} codes all of an image at one quality"
            )
        return self.model.mapped(qualities)

    def _in_colours(self, picture: Picture) -> Picture:
        """Return a picture in the colours that the model takes, where it takes only some."""
        shape = self.bundle.image_shape
        if shape is None or shape[2] == picture.pixels.shape[2]:
            return picture
        from vaecodec.fitting import picture_in_colours

        return picture_in_colours(picture, shape[2])

    def _images_in_colours(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return images likewise, once they are checked."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"expected uint8 images (N, H, W, 1 or 3), got {images.dtype} {images.shape}"
            )
        check_size(images.shape[2], images.shape[1], images.shape[0])
        shape = self.bundle.image_shape
        if shape is None:
            return images
        from vaecodec.fitting import in_colours

        return in_colours(images, shape[2])

    def _header(self, images: NDArray[np.uint8], quality: float | None) -> Header:
        """Return the header of a file of images, uint8 (N, H, W, 1 or 3)."""
        number, height, width, colours = images.shape
        asked = self.bundle.default_quality if quality is None else quality
        if not 0 <= asked <= 100:
            raise ValueError(f"the quality is {asked}; 0 to 100 expected")
        step = self.model.quality_step(asked)
        colour = Colour.GREY if colours == 1 else Colour.RGB
        return Header(width, height, colour, step, self.bundle.fingerprint, images=number)


def as_picture(image: Picture | Image | NDArray[np.uint8]) -> Picture:
    """Return the Picture of a Pillow image or of an array; a Picture passes."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, np.ndarray):
        return from_array(image)
    from vaecodec.images import from_pillow

    return from_pillow(image)


def _qualities(picture: Picture, mask: NDArray[np.uint8] | None) -> QualityMap | None:
    return None if mask is None else map_of_mask(mask, *picture.pixels.shape[:2])


def _asked(search: Search | None, roi: NDArray[np.uint8] | None) -> dict[str, str]:
    """Return what a file is to tell of, beside its target."""
    return (search.settings() if search else {}) | ({} if roi is None else {"roi": ""})


@lru_cache(maxsize=4)
def _codec(model: str | Path, provider: str, threads: int | None) -> Codec:
    return Codec(model, provider, threads)


def encode(
    image: Picture | Image | NDArray[np.uint8],
    quality: float | None = None,
    *,
    target: Target | None = None,
    search: Search | None = None,
    roi: NDArray[np.uint8] | None = None,
    model: str | Path = DEFAULT_MODEL,
    provider: str = "auto",
) -> bytes:
    """Return a .vz file of an image: `Codec.encode` of the codec of `model`, kept for next time."""
    codec = _codec(model, provider, None)
    return codec.encode(image, quality, target=target, search=search, roi=roi)


def decode(data: bytes, *, models: str | Path | None = None, provider: str = "auto") -> Image:
    """Return the Pillow image of a .vz file, with the bundle that it names.

    models: where to look for the bundle, instead of the search path (`bundle.search_path`).
    """
    place = None if models is None else Path(models)
    bundle = find_fingerprint(container.unpack(data).header.model, place)
    return _codec(bundle.path, provider, None).decode(data)
