"""Whether a bundle that somebody sent may be used: everything in it is verified, nothing is run.

`Bundle` checks the manifest and, when they are read, arrays and tables. What it takes on trust of
an installed bundle is verified here, once, before it is installed.
"""

from __future__ import annotations

from vaecodec import difference
from vaecodec.bundle import Bundle
from vaecodec.errors import ModelError
from vaecodec.manifest import is_model_name
from vaecodec.packs import check_directory
from vaecodec.roles import Role, roles

__all__ = ["verify"]

_GRADIENT = "_gradient.onnx"
_FARTHEST = 2**16  # of the symbols of tables: what they cost is tabulated as far as they go


def verify(bundle: Bundle) -> None:
    """Raise ModelError unless a bundle is whole, consistent, and harmless to run.

    Needs onnx, and the bundle that it builds on, if it builds on one.
    """
    if not is_model_name(bundle.name):
        raise ModelError(f"its name is {bundle.name!r:.60}; letters, digits and ._- are allowed")
    archives = [name for name in bundle.manifest["files"] if name.endswith(".npz")]
    for name in sorted(archives, key=lambda name: name != difference.FILE):  # others need it
        _check_npz(name, bundle.read(name))
    bundle.verify()
    known = roles(bundle)
    _check_names(bundle, known)
    for name in bundle.layout.arrays(bundle.manifest["decoding"]):
        bundle.arrays(name)
    _check_tables(bundle)
    _check_graphs(bundle, known)


def _check_npz(name: str, content: bytes) -> None:
    try:
        check_directory(content)
    except ValueError as error:
        raise ModelError(f"{name} is damaged: {error}") from error


def _check_names(bundle: Bundle, known: dict[str, Role]) -> None:
    """Raise ModelError where a file that is needed is missing, or one that nothing needs is there.

    It is about what the manifest names, and so what hashes cover.
    """
    gradients = {name for name in known if name.endswith(_GRADIENT)}
    needed = {"tables.bin", *bundle.layout.arrays(bundle.manifest["decoding"]), *known} - gradients
    if bundle.manifest.get("search"):
        needed |= gradients
    allowed = needed | gradients | ({difference.FILE} if bundle.manifest.get("base") else set())
    named = set(bundle.manifest["files"])
    if missing := sorted(needed - named):
        raise ModelError(f"its manifest lacks the file {missing[0]}")
    if strange := sorted(named - allowed):
        raise ModelError(f"its manifest names the file {strange[0]!r:.60}, which no model needs")


def _check_tables(bundle: Bundle) -> None:
    """Raise ModelError where tables are so wide that they would fill the memory of an encoder."""
    tables = bundle.tables
    reach = max(-int(tables.low.min()), int((tables.low + tables.escape).max()))
    if reach > _FARTHEST:
        raise ModelError(f"tables.bin has symbols up to {reach}; {_FARTHEST} is allowed")
    if bundle.manifest["family"] == "gaussian":
        row = int(bundle.arrays("quality.npz")["row"].max())
        if row >= len(tables.low):
            raise ModelError(f"quality.npz names row {row}; the tables have {len(tables.low)}")


def _check_graphs(bundle: Bundle, known: dict[str, Role]) -> None:
    try:
        from vaecodec import bounds, graphs
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise ModelError(
            "it cannot be verified without the package onnx: pip install onnx"
        ) from error

    if bundle.manifest["family"] == "hyperprior":
        try:
            bounds.check_tables(bundle.arrays("quality.npz"))
        except ValueError as error:
            raise ModelError(f"quality.npz: {error}") from error
    for name in bundle.manifest["files"]:
        if name not in known:
            continue
        lender = known[name].lender
        lent = None if lender is None else bundle.read(lender)
        try:
            graphs.check(bundle.read(name), known[name], lent)
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from error
