"""Bundles: a model's graphs, tables and manifest in one directory that never changes.

A bundle is found by name or directory, and by the fingerprint that files carry: the first 8 bytes
of a SHA-256 over what decoding needs and nothing else.

A bundle is untrusted input: its manifest and its arrays are checked when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaecodec import manifest as manifests
from vaecodec.container import FINGERPRINT_BYTES
from vaecodec.errors import ModelError
from vaecodec.layouts import LAYOUTS, Layout
from vaecodec.places import MANIFEST, directories, search_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaecodec.tables import FrequencyTables

DEFAULT_MODEL = "photo-3"
FORMAT = 1
"""The version of bundles that this vaecodec reads."""


def fingerprint(decoding: dict[str, Any], files: list[bytes]) -> bytes:
    """Return the 8 bytes that name a model in files.

    They cover the manifest's "decoding" object (as JSON, keys sorted, without spaces) and the
    contents of `Bundle.decoding_files`, each preceded by its length in 8 bytes, little-endian.
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
        """Return the bundle in a directory, its manifest checked.

        Raises ModelError where it is missing, damaged or of another version. The path of the
        bundle is made absolute, so that it can never be taken for a name.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
        except OSError as error:
            raise ModelError(
                f"{path} is no model bundle: {MANIFEST} cannot be read; `vaecodec models` lists "
                "those at hand"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"{path / MANIFEST} is damaged: it is no JSON; install the bundle again"
            ) from error
        try:
            manifests.check(manifest, manifests.VERSION)
            _check_version(path, manifest["family"], manifest["format"])
            manifests.check(manifest, manifests.COMMON)
            manifests.check(manifest, LAYOUTS[manifest["family"]].entries)
        except ValueError as error:
            raise ModelError(
                f"{path / MANIFEST} is damaged: {error}; install the bundle again"
            ) from error
        return cls(path.absolute(), manifest)

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

    @property
    def layout(self) -> Layout:
        """What a bundle of its family consists of."""
        return LAYOUTS[self.manifest["family"]]

    @property
    def decoding_files(self) -> list[str]:
        """The files that decoding needs, in the order in which the fingerprint hashes them."""
        return self.layout.files(self.manifest["decoding"])

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and colours (1 or 3) of the images it takes; None where it takes any."""
        return self.layout.shape(self.manifest["decoding"])

    @cached_property
    def tables(self) -> FrequencyTables:
        """The integer frequency tables."""
        from vaecodec.tables import FrequencyTables

        tables = FrequencyTables.from_bytes(self.read("tables.bin"))
        if len(tables.low) < self.layout.rows:
            raise ModelError(
                f"{self.path / 'tables.bin'} has {len(tables.low)} rows; {self.layout.rows} "
                "expected; install the bundle again"
            )
        return tables

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of an .npz file of the bundle, one that its layout has.

        docs/format.md has those of quality.npz; gains.npz holds gain (levels, channels) and z_gain
        (levels, side), float32. Raises ModelError unless they are what the manifest states.
        """
        from vaecodec import arrays

        kinds = self.layout.arrays(self.manifest["decoding"])[name]
        try:
            found = arrays.read(self.read(name), kinds)
            _check_gains(found)
        except ValueError as error:
            raise ModelError(
                f"{self.path / name} is damaged: {error}; install the bundle again"
            ) from error
        return found

    @cached_property
    def base(self) -> Bundle | None:
        """The bundle that this one is kept as a difference to, if it is.

        Raises ModelError where it is not at hand.
        """
        if not (named := self.manifest.get("base")):
            return None
        wanted, folders = bytes.fromhex(named["fingerprint"]), [self.path.parent, *search_path()]
        for bundle in available(folders):
            if bundle.fingerprint == wanted and not bundle.manifest.get("base"):
                return bundle
        raise ModelError(
            f"{self.name} is kept as a difference to model {named['name']} ({wanted.hex()}), which "
            "is not here; install that first with `vaecodec models add`"
        )

    def read(self, name: str) -> bytes:
        """Return the contents of a file of the bundle, made from its base's if it is kept so."""
        source = self.source(name)
        if isinstance(source, bytes):
            return source
        try:
            return source.read_bytes()
        except OSError as error:
            raise ModelError(f"{source} cannot be read; install the bundle again") from error

    def source(self, name: str) -> Path | bytes:
        """Return where a file of the bundle lies, or its contents where they are made.

        What is made from the base has the hash that the manifest states. Raises ModelError.
        """
        own = self.path / name
        if not self.manifest.get("base") or own.exists():
            return own
        assert self.base is not None
        content = self._made(self.base, name)
        if hashlib.sha256(content).hexdigest() != self.manifest["files"].get(name):
            raise ModelError(
                f"{name} cannot be made of {self.base.path} and {self.path}: one of them is not "
                "what was released; install both again"
            )
        return content

    def _made(self, base: Bundle, name: str) -> bytes:
        """Return a file's contents: the base's, with the changes that there are."""
        from vaecodec import difference

        content, packed = base.read(name), self.read(difference.FILE)
        try:
            if name in difference.changed(packed):
                change = difference.unpack(packed, name, len(content))
                content = difference.apply(content, change)
        except ValueError as error:
            raise ModelError(
                f"{self.path / difference.FILE} is damaged: {error}; install the bundle again"
            ) from error
        return content

    def verify(self) -> None:
        """Raise ModelError unless every file has the hash that the manifest states."""
        for name, expected in self.manifest["files"].items():
            found = hashlib.sha256(self.read(name)).hexdigest()
            if found != expected:
                raise ModelError(
                    f"{self.path / name} is not the file that was released; install the bundle "
                    "again"
                )
        files = [self.read(name) for name in self.decoding_files]
        if fingerprint(self.manifest["decoding"], files) != self.fingerprint:
            raise ModelError(f"{self.path / MANIFEST} does not state the fingerprint of its files")


def _check_version(path: Path, family: str, version: int) -> None:
    if version != FORMAT or family not in LAYOUTS:
        raise ModelError(
            f"{path} is a {family} bundle of version {version}; this vaecodec reads "
            f"{' and '.join(LAYOUTS)} bundles of version {FORMAT}, a newer one may read it"
        )


def _check_gains(arrays: dict[str, NDArray[Any]]) -> None:
    """Raise ValueError where a gain is not positive and finite: it has a logarithm."""
    for key, array in arrays.items():
        if array.dtype.kind == "f" and not 0 < array.min() <= array.max() < float("inf"):
            raise ValueError(f"{key} has values that are not positive and finite")


def available(folders: list[Path] | None = None) -> Iterator[Bundle]:
    """Yield the bundles in `folders` as `directories` does; one that cannot be read is passed by.

    (It must not keep the others from being found; `vaecodec models` tells of it.)
    """
    for path in directories(folders):
        with suppress(ModelError):
            yield Bundle.open(path)


def find(model: str | Path = DEFAULT_MODEL) -> Bundle:
    """Return the bundle of a name or of a directory; ModelError where there is none.

    A plain name is looked up on the search path, and is a directory only where it is not found
    there: what a folder holds does not change the model. A Path, or what has a separator, is a
    directory.
    """
    if isinstance(model, Path) or not manifests.is_plain_name(model):
        return Bundle.open(Path(model))
    for folder in [*search_path(), Path()]:
        if (folder / model / MANIFEST).is_file():
            return Bundle.open(folder / model)
    known = ", ".join(sorted({b.name for b in available()})) or "none"
    raise ModelError(f"no model {model!r}; at hand: {known}. Give a name or a bundle directory")


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
        f"the file was written with model {wanted.hex()}, which is not here; `vaecodec models add` "
        "installs its bundle once you have it, or name its directory with --model"
    )
