"""Files of a picture: what stands in them beside the symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vaecodec import container
from vaecodec.container import Container, Header
from vaecodec.picture import Picture
from vaecodec.roi import QualityMap, pack_map
from vaecodec.settings import pack_settings
from vaecodec.stages import Watch
from vaecodec.tuning import Pack

__all__ = ["alpha_of", "packer"]


def packer(
    picture: Picture, asked: Mapping[str, str], qualities: QualityMap | None, watch: Watch
) -> Pack:
    """Return what makes files of a picture from header and payloads; it may be called many times.

    asked: settings that the file is to tell of.
    """
    with watch("container"):
        rest = {
            "icc": picture.icc,
            "exif": picture.exif,
            "xmp": picture.xmp,
            "made": pack_settings(asked) if asked else None,
            "alpha": None if picture.alpha is None else _pack_alpha(picture.alpha),
            "qualities": None if qualities is None else pack_map(qualities),
        }

    def pack(header: Header, tiles: Sequence[bytes]) -> bytes:
        with watch("container"):
            return container.pack(Container(header, tuple(tiles), **rest))

    return pack


def alpha_of(file: Container) -> NDArray[np.uint8] | None:
    """Return the alpha channel of a file, uint8 (H, W), or None; raises FormatError."""
    if file.alpha is None:
        return None
    from vaecodec.images import read_alpha

    return read_alpha(file.alpha)


def _pack_alpha(alpha: NDArray[np.uint8]) -> bytes:
    from vaecodec.images import pack_alpha

    return pack_alpha(alpha)
