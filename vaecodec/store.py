"""The models that a user installed: adding a bundle to the data directory, and removing one.

A bundle becomes visible by one rename, once it is verified. Until then it lies two folders deep,
where `places.directories` does not look, so that an installation that was killed leaves no model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import time
from typing import NamedTuple

from vaecodec import packs, received
from vaecodec.bundle import Bundle, available
from vaecodec.errors import ModelError
from vaecodec.places import MANIFEST, directories, search_path

__all__ = ["Added", "add", "drafting", "home", "pack", "remove"]

_DRAFT = ".draft-"  # what directories that bundles are made in begin with
_ABANDONED = 7 * 86_400  # seconds: no training takes as long
_REASON_LENGTH = 300  # characters: some of what is told is from the bundle itself


class Added(NamedTuple):
    """A bundle that can be used now; new: whether it was installed, or was at hand before."""

    bundle: Bundle
    new: bool


def home() -> Path:
    """Return the directory of the models that the user installed."""
    return search_path()[-1]


def add(source: Path) -> Added:
    """Verify a bundle, a directory or a packed file, and install it under the name it states.

    Raises ModelError where it is refused or another model has the name already; nothing is
    installed then. OSError where `source` cannot be read or the data directory not be written.
    """
    files = packs.read(source)
    with drafting(home()) as folder:
        draft = folder / "bundle"
        draft.mkdir()
        for name, content in files.items():
            (draft / name).write_bytes(content)
        found = _verified(draft, source, files.keys())
        target = home() / found.name
        if known := _at_hand(found, target):
            return Added(known, False)
        if (target / MANIFEST).is_file():  # damaged
            target.rename(folder / "replaced")
        draft.rename(target)
    return Added(Bundle.open(target), True)


def pack(bundle: Bundle) -> bytes:
    """Return the packed file of a bundle. Raises ModelError where `add` would refuse it."""
    _verify(bundle, bundle.path)
    data = packs.pack(packs.files_of(bundle))
    packs.check(data, bundle.path)
    return data


def remove(name: str, *, force: bool = False) -> Path:
    """Remove an installed model; return the directory that it was in.

    Raises ModelError where there is none of that name, where it was not installed by the user, and,
    unless `force`, where another model builds on it.
    """
    found = [path for path in _named(name) if path.parent == home()]
    if not found:
        raise ModelError(_not_installed(name))
    if (others := _built_on(found[0])) and not force:
        raise ModelError(
            f"{name} is what {', '.join(others)} builds on, which cannot be used without it; "
            "-f/--force removes it all the same"
        )
    with drafting(home()) as folder:
        found[0].rename(folder / "removed")
    return found[0]


@contextmanager
def drafting(place: Path) -> Iterator[Path]:
    """Give an empty directory in a directory of bundles, to make one in; it goes in the end.

    `place` is made where it is not there. What killed processes left in it, a week ago or longer,
    goes too.
    """
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"{_DRAFT}*"):
        with suppress(OSError):
            if time() - left.stat().st_mtime > _ABANDONED:
                rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_DRAFT, dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _verified(draft: Path, source: Path, names: Iterable[str]) -> Bundle:
    """Return the bundle in a draft; ModelError that names its source where it is refused."""
    with _refusals(draft, source):
        found = Bundle.open(draft)
        if strange := sorted({*names} - {MANIFEST, *packs.BESIDE, *found.manifest["files"]}):
            raise ModelError(f"it holds {strange[0]!r:.60}, which its manifest does not name")
        received.verify(found)
    return found


def _verify(bundle: Bundle, source: Path) -> None:
    with _refusals(bundle.path, source):
        received.verify(bundle)


@contextmanager
def _refusals(place: Path, source: Path) -> Iterator[None]:
    """Say of which source it is what a bundle in some place is refused for."""
    try:
        yield
    except ModelError as error:
        here = str(place.absolute())
        why = str(error).replace(here + os.sep, "").replace(here, "it")
        why = why.removesuffix("; install the bundle again")
        why = "".join(c if c.isprintable() else " " for c in why)
        raise ModelError(f"{source} is refused: {why:.{_REASON_LENGTH}}") from error


def _named(name: str) -> Iterator[Path]:
    """Yield the directories at hand that a model of a name is found in, damaged ones included."""
    for path in directories():
        try:
            found = {path.name, Bundle.open(path).name}
        except ModelError:
            found = {path.name}
        if name in found:
            yield path


def _at_hand(wanted: Bundle, target: Path) -> Bundle | None:
    """Return the same bundle where it is at hand; ModelError where another one has its name.

    A damaged bundle in `target` counts as none: it will be replaced.
    """
    for path in _named(wanted.name):
        try:
            known = Bundle.open(path)
            known.verify()
        except ModelError:
            if path == target:
                continue
            raise
        if known.manifest == wanted.manifest:
            return known
        hint = f"vaecodec models remove {wanted.name}" if path.parent == home() else "rename that"
        raise ModelError(
            f"{path} is another model of the name {wanted.name}, {known.fingerprint.hex()} and not "
            f"{wanted.fingerprint.hex()}; {hint} first"
        )
    return None


def _not_installed(name: str) -> str:
    for path in _named(name):
        return f"{name} is in {path}; only what is in {home()} is removed"
    installed = [path.name for path in directories([home()]) if path.parent == home()]
    return f"no model {name!r:.60} is installed; there are {', '.join(installed) or 'none'}"


def _built_on(path: Path) -> list[str]:
    """Return the names of the models at hand that need the one in a directory."""
    others = [found for found in available() if found.path != path.absolute()]
    try:
        wanted = Bundle.open(path).fingerprint
    except ModelError:
        return []
    if any(found.fingerprint == wanted for found in others):
        return []
    bases = {found.name: found.manifest.get("base") for found in others}
    return sorted(
        name
        for name, base in bases.items()
        if isinstance(base, dict) and base.get("fingerprint") == wanted.hex()
    )
