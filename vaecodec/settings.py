"""How a file was made: the settings that were asked for, in a chunk of their own.

Section "Settings" of docs/format.md. They tell of the encoder and change nothing for a decoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vaecodec.errors import FormatError

__all__ = ["MAX_BYTES", "pack_settings", "read_settings"]

MAX_BYTES = 255

_ENTRY = re.compile(r"([a-z][a-z-]*)(?:=([0-9A-Za-z.+-]+))?", re.ASCII)


def pack_settings(settings: Mapping[str, str]) -> bytes:
    """Return the payload that `read_settings` reads; a value of "" is that of a bare name.

    Raises FormatError for what no file may say.
    """
    text = " ".join(f"{name}={value}" if value else name for name, value in settings.items())
    payload = text.encode()
    if read_settings(payload) != settings:
        raise FormatError(f"the settings {settings} do not come back from a file")
    return payload


def read_settings(payload: bytes) -> dict[str, str]:
    """Return name -> value, "" without one, in the order of the file.

    Raises FormatError for a payload that breaks the rules of the format.
    """
    if not 1 <= len(payload) <= MAX_BYTES:
        raise FormatError(f"the settings have {len(payload)} bytes; 1 to {MAX_BYTES} were expected")
    settings: dict[str, str] = {}
    for entry in payload.decode("latin-1").split(" "):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise FormatError(f"the settings hold {entry[:40]!r}; name or name=value was expected")
        if found[1] in settings:
            raise FormatError(f"the settings hold {found[1]!r} twice")
        settings[found[1]] = found[2] or ""
    return settings
