"""Proof on files that symbols do not depend on how they are decoded: `python -m train exact`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

from train.data import image_files
from train.parity import Int64Graph
from train.progress import Progress, say
from train.symbols import digest, prior_of
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.errors import FormatError
from vaecodec.images import read
from vaecodec.picture import strip
from vaecodec.priors import HyperPrior
from vaecodec.rans import constriction_coder
from vaecodec.runtime import Graph
from vaecodec.tables import FrequencyTables

QUALITIES = (10.0, 50.0, 90.0)
THREADS = (1, 2)
LEVELS = ("none", "basic", "extended", "all")
"""What ONNX Runtime may rewrite in a graph."""


def priors(bundle: Bundle) -> Iterator[tuple[str, HyperPrior]]:
    """Yield the prior of a bundle in every way of running it, with a name of each."""
    files = {name: bundle.read(name) for name in bundle.decoding_files}

    def graph(threads: int, level: str) -> Callable[[bytes], Graph]:
        return lambda model: Graph(model, "cpu", threads, level)

    for threads, level in product(THREADS, LEVELS):
        yield f"{threads} threads, {level}", prior_of(files, graph(threads, level))
    yield "int64 NumPy", prior_of(files, Int64Graph)


def compare(
    model: str | Path, folders: Sequence[Path], qualities: Sequence[float], count: int
) -> int:
    """Encode each image once, decode its symbols in every way, and print what differs.

    Returns 0 where all agree, else 1. Raises ValueError where there is no image to compare on.
    """
    codec = Codec(model, "cpu")
    if codec.bundle.manifest["family"] != "hyperprior":
        raise ValueError(
            f"{codec.bundle.name} has no prior that runs: its files are read by tables alone, and "
            "there is nothing to compare. Name a model of photographs"
        )
    images = image_files(folders)[:count]
    if not images:
        raise ValueError(f"no image in {', '.join(map(str, folders))} to compare on")
    if constriction_coder() is None:
        say("constriction is not installed: the entropy coder is compared with itself")
    ways = list(priors(codec.bundle))
    files: list[tuple[str, bytes]] = []
    with Progress("encoding") as progress:
        for n, (path, quality) in enumerate(product(images, qualities), 1):
            picture = strip(read(path))
            files.append((f"{path.stem} at {quality:g}", codec.encode(picture, quality)))
            progress.update(n / len(images) / len(qualities))
    found = _digests(codec.bundle.tables, ways, files)
    return _report(found, [name for name, _ in files])


def _digests(
    tables: FrequencyTables,
    ways: Sequence[tuple[str, HyperPrior]],
    files: Sequence[tuple[str, bytes]],
) -> dict[str, list[str]]:
    """Return, for each way of decoding, the digest of every file."""
    result: dict[str, list[str]] = {}
    coders = {"library": False, "portable": True}
    total, done = len(ways) * len(coders) * len(files), 0
    with Progress("decoding") as progress:
        for (way, prior), (coder, portable) in product(ways, coders.items()):
            column = result.setdefault(f"{way}, {coder}", [])
            for _, data in files:
                try:
                    column.append(digest(data, prior, tables, portable=portable))
                except FormatError as error:  # wrong symbols do not match their checksum
                    column.append(str(error))
                done += 1
                progress.update(done / total, way)
    return result


def _report(found: dict[str, list[str]], names: Sequence[str]) -> int:
    """Print a line for each way of decoding; return 1 if a digest is not the first way's."""
    expected = next(iter(found.values()))
    failed = False
    for way, column in found.items():
        pairs = zip(names, column, expected, strict=True)
        wrong = [name for name, a, b in pairs if a != b]
        told = f"{len(wrong)} differ: {', '.join(wrong)}" if wrong else "equal"
        print(f"{way:40} {len(column)} files, {told}")
        failed |= bool(wrong)
    print(f"{len(names)} files in {len(found)} ways: {'SYMBOLS DIFFER' if failed else 'all equal'}")
    return int(failed)
