"""What the manifest of a bundle has to say before anything of it is used. It is untrusted input."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

# What a value may be


def is_plain_name(value: object) -> bool:
    """Return whether `value` can name a file or a model: 1..100 printable characters, no path."""
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or value.startswith("."):
        return False
    return value.isprintable() and not set(value) & set("/\\:")


_MODEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


def is_model_name(value: str) -> bool:
    """Return whether a model of this name can be sent along: a folder's name on every system."""
    return _MODEL.fullmatch(value) is not None


def is_whole(low: int, high: int) -> Callable[[Any], bool]:
    """Return what tells whether a value is an integer from `low` to `high`."""
    return lambda value: type(value) is int and low <= value <= high  # True is no number


def _is_hex(digits: int) -> Callable[[Any], bool]:
    form = re.compile(f"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


_is_hash = _is_hex(64)


def is_figure(value: Any) -> bool:
    """Return whether a value is a number that a float holds, and finite."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_quality(value: Any) -> bool:
    return is_figure(value) and 0 <= value <= 100


def is_one_of(*values: int | str) -> Callable[[Any], bool]:
    """Return what tells whether a value is one of `values`, and of its type."""
    return lambda value: type(value) in (int, str) and value in values


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        is_plain_name(k) and _is_hash(v) for k, v in value.items()
    )


def _is_figures(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_figure, value.values()))


def _is_cost(value: object) -> bool:
    return value is None or _is_figures(value)


def _is_measured(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_point, value)))


def _is_point(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("set", ""), str):
        return False
    return _is_figures({k: v for k, v in value.items() if k != "set"})


def _is_base(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not is_plain_name(value.get("name")):
        return False
    return _is_hex(16)(value.get("fingerprint"))


Entries = Mapping[str, tuple[Callable[[Any], bool], str]]
"""Place in a manifest, with dots between keys -> whether a value will do, what is expected."""

VERSION: Entries = {
    "family": (is_plain_name, "a plain name"),
    "format": (is_whole(1, 9999), "a version"),
}
"""What says whether the rest can be understood."""

COMMON: Entries = {
    "name": (is_plain_name, "a plain name"),
    "fingerprint": (_is_hex(16), "16 hexadecimal digits"),
    "default_quality": (_is_quality, "0 to 100"),
    "files": (_is_files, "plain file names, each with a SHA-256"),
    "base": (_is_base, "the name and fingerprint of a bundle, or nothing"),
    "cost": (_is_cost, "figures by name, or nothing"),
    "measured": (_is_measured, "a list of figures by name, each with its set, or nothing"),
}
"""What every family needs; what each needs besides stands in `vaecodec.layouts`."""


def check(manifest: object, entries: Entries) -> None:
    """Raise ValueError that names the first entry which is missing or not what it has to be."""
    for place, (will_do, expected) in entries.items():
        value: Any = manifest
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not will_do(value):
            found = "missing" if value is None else f"{value!r:.60}"
            raise ValueError(f"{place} is {found}; {expected} expected")
