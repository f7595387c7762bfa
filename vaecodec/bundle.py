"""Bundles: a model's graphs, tables and manifest in one directory that never changes.

A bundle is found by name or directory, and by the fingerprint that files carry: the first 8 bytes
of a SHA-256 over what decoding needs and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaecodec.container import FINGERPRINT_BYTES
from vaecodec.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vaecodec.tables import FrequencyTables

DEFAULT_MODEL = "photo-1"
MANIFEST = "manifest.json"
FORMAT = 1
"""The version of bundles that this vaecodec reads."""


def decoding_files(steps: int) -> list[str]:
    """Return the files that decoding needs, in the order in which the fingerprint hashes them."""
    graphs = ["hyper.onnx", *(f"step{k}.onnx" for k in range(steps)), "decoder.onnx"]
    return [*graphs, "tables.bin", "quality.npz"]


def fingerprint(decoding: dict[str, Any], files: list[bytes]) -> bytes:
    """Return the 8 bytes that name a model in files.

    They cover the manifest's "decoding" object (as JSON, keys sorted, without spaces) and the
    contents of `decoding_files`, each preceded by its length in 8 bytes, little-endian.
    """
    digest = hashlib.sha256()
    for part in [json.dumps(decoding, sort_keys=True, separators=(",", ":")).encode(), *files]:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()[:FINGERPRINT_BYTES]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. Its manifest is read at once, everything else when it is asked for."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Return the bundle in a directory; ModelError where it is missing or unreadable."""
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            version, family = manifest["format"], manifest["family"]
            bytes.fromhex(manifest["fingerprint"])
        except OSError as error:
            raise ModelError(f"{path} is no model bundle: {MANIFEST} cannot be read") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path / MANIFEST} is damaged; install the bundle again") from error
        if version != FORMAT or family != "hyperprior":
            raise ModelError(
                f"{path} is a {family} bundle of version {version}; this vaecodec reads hyperprior "
                f"bundles of version {FORMAT}, a newer one may read it"
            )
        return cls(path, manifest)

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.manifest["name"])

    @property
    def fingerprint(self) -> bytes:
        """The 8 bytes that files written with this bundle carry."""
        return bytes.fromhex(self.manifest["fingerprint"])

    @property
    def default_quality(self) -> float:
        """The quality, 0..100, that is used where none is asked for."""
        return float(self.manifest["default_quality"])

    @cached_property
    def tables(self) -> FrequencyTables:
        """The integer frequency tables."""
        from vaecodec.tables import FrequencyTables

        return FrequencyTables.from_bytes(self.read("tables.bin"))

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of an .npz file of the bundle."""
        import numpy as np

        try:
            with np.load(self.path / name) as file:
                return dict(file)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self.path / name} is missing or damaged") from error

    def read(self, name: str) -> bytes:
        """Return the contents of a file of the bundle."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise ModelError(f"{self.path / name} cannot be read; install the bundle again") from error

    def verify(self) -> None:
        """Raise ModelError unless every file has the hash that the manifest states."""
        for name, expected in self.manifest["files"].items():
            found = hashlib.sha256(self.read(name)).hexdigest()
            if found != expected:
                raise ModelError(f"{self.path / name} is not the file that was released")
        decoding = self.manifest["decoding"]
        files = [self.read(name) for name in decoding_files(decoding["steps"])]
        if fingerprint(decoding, files) != self.fingerprint:
            raise ModelError(f"{self.path / MANIFEST} does not state the fingerprint of its files")


def search_path() -> list[Path]:
    """Return the directories that hold bundles: the package's, $VAECODEC_MODELS, the user's."""
    import platformdirs

    package = Path(__file__).parent
    folders = [package / "exported", package.parent / "exported"]
    if own := os.environ.get("VAECODEC_MODELS"):
        folders += map(Path, own.split(os.pathsep))
    return [*folders, platformdirs.user_data_path("vaecodec") / "models"]


def available(folders: list[Path] | None = None) -> Iterator[Bundle]:
    """Yield the bundles in `folders` (by default the search path), by name within a folder."""
    for folder in search_path() if folders is None else folders:
        if folder.is_dir():
            for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
                yield Bundle.open(manifest.parent)


def find(model: str | Path = DEFAULT_MODEL) -> Bundle:
    """Return the bundle of a name (looked up on the search path) or of a directory."""
    if (Path(model) / MANIFEST).is_file():
        return Bundle.open(Path(model))
    for folder in search_path():
        if (folder / str(model) / MANIFEST).is_file():
            return Bundle.open(folder / str(model))
    known = ", ".join(sorted({b.name for b in available()})) or "none"
    raise ModelError(f"no model {str(model)!r}; at hand: {known}. Give a name or a bundle directory")


def find_fingerprint(wanted: bytes, place: Path | None = None) -> Bundle:
    """Return the bundle that a file names.

    `place` says where to look instead of the search path: a bundle directory, or a directory of
    bundles. A bundle directory with another fingerprint is a ModelError.
    """
    if place is not None and (place / MANIFEST).is_file():
        bundle = Bundle.open(place)
        if bundle.fingerprint == wanted:
            return bundle
        raise ModelError(
            f"the file was written with model {wanted.hex()}, but {place} is "
            f"{bundle.fingerprint.hex()} ({bundle.name})"
        )
    for bundle in available(None if place is None else [place]):
        if bundle.fingerprint == wanted:
            return bundle
    raise ModelError(
        f"the file was written with model {wanted.hex()}, which is not here; put its bundle in "
        f"{search_path()[-1]} or name its directory with --model"
    )
