"""Every error that vaecodec raises on purpose.

    VaecodecError               catch this one to catch them all
    ├── FormatError             a .vz file that is damaged, too new, or says what cannot be
    ├── ModelError              a bundle that is missing, unknown or damaged
    ├── ImageError              an input that is no image, of an unknown kind, or of a wrong size
    ├── TargetError             a size or likeness that a file cannot be made to
    └── ProviderError           no ONNX Runtime installed, or CUDA asked for where it cannot work

TargetWarning, a UserWarning, says the like of a target that is met as nearly as can be.

Each message is one sentence or two, without a line break: what was found, what was expected, what
to do. Wrong use of the Python API (a wrong dtype, say) raises ValueError or TypeError instead.
"""

__all__ = [
    "FormatError",
    "ImageError",
    "ModelError",
    "ProviderError",
    "TargetError",
    "TargetWarning",
    "VaecodecError",
]


class VaecodecError(Exception):
    """Base of all errors below; its text is meant to be shown to a user as it is."""


class FormatError(VaecodecError):
    """A .vz file is damaged, needs a newer version, or contradicts itself."""


class ModelError(VaecodecError):
    """A model bundle is missing, unknown, damaged, or not the one that a file names."""


class ImageError(VaecodecError):
    """An input is not an image, or its kind, size or metadata is not acceptable."""


class TargetError(VaecodecError):
    """A file of the size, or the likeness, that was asked for cannot be made of the image."""


class TargetWarning(UserWarning):
    """A target is met only as nearly as can be; `targets.Target.strict` makes that an error."""


class ProviderError(VaecodecError):
    """No ONNX Runtime is installed, or the provider that was asked for cannot be used."""
