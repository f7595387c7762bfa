"""Rows of measurements in a file of tab-separated values: a run that was stopped goes on there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Add = Callable[[Sequence[object]], None]
"""Appends a row to the file at once."""


@contextmanager
def resumed(path: Path, columns: Sequence[str]) -> Iterator[tuple[list[list[str]], Add]]:
    """Yield the rows that a file of these columns has, and what adds one.

    Raises ValueError where the file has other columns.
    """
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    head = "\t".join(columns)
    if lines and lines[0] != head:
        found = ", ".join(lines[0].split("\t"))
        raise ValueError(
            f"{path} has the columns {found:.100}; {', '.join(columns)} expected: give another file"
        )
    with path.open("a", encoding="utf-8") as file:

        def add(values: Sequence[object]) -> None:
            cells = (f"{v:.7g}" if isinstance(v, float) else str(v) for v in values)
            print(*cells, sep="\t", file=file, flush=True)

        if not lines:
            add(columns)
        yield [line.split("\t") for line in lines[1:]], add
