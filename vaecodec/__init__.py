"""vaecodec: a learned image codec whose files open bit-exactly on every machine.

    data = vaecodec.encode(image, quality=60)      # a Pillow image or a uint8 array -> bytes
    image = vaecodec.decode(data)                  # bytes -> Pillow image
    codec = vaecodec.Codec("photo-3", provider="cuda", threads=4)    # for repeated use

Nothing heavy is imported until one of these names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaecodec.errors import (
    FormatError,
    ImageError,
    ModelError,
    ProviderError,
    TargetError,
    TargetWarning,
    VaecodecError,
)

if TYPE_CHECKING:
    from vaecodec.codec import Codec, decode, encode
    from vaecodec.inspection import inspect
    from vaecodec.search import Search
    from vaecodec.targets import Target

__all__ = [
    "Codec",
    "FormatError",
    "ImageError",
    "ModelError",
    "ProviderError",
    "Search",
    "Target",
    "TargetError",
    "TargetWarning",
    "VaecodecError",
    "__version__",
    "decode",
    "encode",
    "inspect",
]

__version__ = "0.1.0"


_MODULES = {
    "Codec": "codec",
    "Search": "search",
    "Target": "targets",
    "decode": "codec",
    "encode": "codec",
    "inspect": "inspection",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vaecodec' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"vaecodec.{_MODULES[name]}"), name)
