"""Which class runs the bundles of each family: what `Codec` codes images with."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vaecodec.bundle import Bundle
from vaecodec.container import Header
from vaecodec.gaussian import Gaussian
from vaecodec.hyperprior import Hyperprior
from vaecodec.roi import QualityMap
from vaecodec.runtime import Device
from vaecodec.search import Search
from vaecodec.stages import Watch


class Model(Protocol):
    """A bundle made ready: images <-> the payloads of a file. Safe to use from several threads."""

    def quality_step(self, quality: float) -> int:
        """Return the step, 0..6400 in 1/64, that stands for a quality 0..100 in files."""

    def encode(
        self, images: NDArray[np.uint8], header: Header, search: Search | None
    ) -> list[bytes]:
        """Return the payload of each tile of `header`, for images uint8 (N, H, W, 1 or 3).

        search: how hard to look for a better file, None for the model's default.
        Raises ImageError where the model does not take such images, ModelError for a search that
        it cannot do.
        """

    def decode(self, header: Header, tiles: tuple[bytes, ...]) -> NDArray[np.uint8]:
        """Return the images, uint8 (N, H, W, 1 or 3), of the payload of each tile.

        Raises FormatError for what no `encode` wrote.
        """


@runtime_checkable
class Regional(Model, Protocol):
    """A model that can code each position of an image at a quality of its own."""

    def mapped(self, qualities: QualityMap) -> Regional:
        """Return the model for files with a quality map."""


_CLASSES: dict[str, type[Hyperprior] | type[Gaussian]] = {
    "hyperprior": Hyperprior,
    "gaussian": Gaussian,
}


def load(
    bundle: Bundle, provider: Device, threads: int | None, portable: bool, watch: Watch
) -> Model:
    """Return the model of a bundle.

    provider: as `runtime.resolve` gives it. threads: of each network, None for all cores.
    portable: do without the entropy coding library, for the same bytes. watch: told of every stage
    (`vaecodec.stages`). Raises ModelError where the bundle is damaged.
    """
    return _CLASSES[bundle.manifest["family"]](bundle, provider, threads, portable, watch)
