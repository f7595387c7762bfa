"""The pictures of a gaussian model, from arrays: matplotlib figures with titles, axes and legends.

Every image is drawn at a whole number of screen pixels per pixel. Images are uint8 (N, H, W, C),
latents float32 (N, D). No pyplot: its figures would live until the process ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from train.pictures import WHITE, Pixels, grid

Latents = NDArray[np.float32]
Span = tuple[float, float]

DPI = 100
WIDTH = 860
"""Screen pixels that the images of a figure may be wide in all; more only if one pixel is one."""
TITLE, NAMES, BETWEEN, EDGE = 38, 20, 44, 16
"""Screen pixels of the title, of the panels' own, between two panels, and at the right."""


@dataclass(frozen=True)
class Ticks:
    """An axis of images: its label, and texts at positions in the axis' own units."""

    label: str = ""
    at: Sequence[float] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Panel:
    """Images put together to one picture, uint8 (H, W, C), and what stands around it."""

    picture: Pixels
    title: str = ""
    x: Ticks = field(default_factory=Ticks)
    y: Ticks = field(default_factory=Ticks)
    extent: tuple[float, float, float, float] | None = None
    """Left, right, bottom and top in the units of the axes; None counts pixels from the top."""


def comparison(
    sets: Sequence[tuple[str, Sequence[tuple[str, Pixels]]]], columns: int, title: str
) -> Figure:
    """Draw sets of images and what becomes of them, one below the other.

    A set is a name and a few (label, images) of equal shape: the first image of each makes a
    column, labelled at the left, and so on.
    """
    panels = []
    for name, kinds in sets:
        height = kinds[0][1].shape[1]
        picture = grid(np.concatenate([images for _, images in kinds], 1), columns, gap=4)
        tops = np.arange(0, picture.shape[0], len(kinds) * height + 4)
        at = [top + height * (k + 0.5) for top in tops for k in range(len(kinds))]
        y = Ticks(at=at, texts=[label for label, _ in kinds] * len(tops))
        panels.append(Panel(picture, name, y=y))
    longest = max(len(label) for _, kinds in sets for label, _ in kinds)
    return _sheet(panels, title, left=18 + 7 * longest, bottom=12, stacked=True)


def samples(sets: Sequence[tuple[str, Pixels]], columns: int, title: str) -> Figure:
    """Draw (name, images) of each set."""
    return beside([(name, grid(images, columns, gap=1)) for name, images in sets], title)


def beside(pictures: Sequence[tuple[str, Pixels]], title: str) -> Figure:
    """Draw (name, picture), each uint8 (H, W, C), side by side, flat ones one below the other."""
    panels = [Panel(picture, name) for name, picture in pictures]
    height, width, _ = panels[0].picture.shape
    return _sheet(panels, title, left=EDGE, bottom=EDGE, stacked=2 * height < width)


def losses(curves: Sequence[tuple[str, Sequence[float]]], label: str, title: str) -> Figure:
    """Draw (name, loss of each epoch from the first) of each curve, with a legend."""
    figure = Figure(figsize=(7, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), style in zip(curves, (".-", ".--", "x-", "x--"), strict=False):
        axes.plot(range(1, len(values) + 1), values, style, linewidth=1, label=name)
    axes.set_xlabel("epoch", fontsize=11)
    axes.set_ylabel(label, fontsize=11)
    axes.set_title(title, fontsize=13)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)
    return figure


def lattice(x: Span, y: Span, columns: int, rows: int) -> Latents:
    """Return the latents of a grid, float32 (rows * columns, 2), in the order it is drawn.

    The first latent rises from left to right over `x`, ends included; the second falls from the
    top row to the bottom row over `y`, as an axis that points up has it.
    """
    across, down = np.linspace(x[0], x[1], columns), np.linspace(y[1], y[0], rows)
    return np.stack([np.tile(across, rows), np.repeat(down, columns)], 1).astype(np.float32)


def manifold(images: Pixels, x: Span, y: Span, columns: int, title: str) -> Figure:
    """Draw what the latents of `lattice` decode to, on axes of latent values."""
    rows = len(images) // columns
    half_x = (x[1] - x[0]) / max(columns - 1, 1) / 2
    half_y = (y[1] - y[0]) / max(rows - 1, 1) / 2
    extent = (x[0] - half_x, x[1] + half_x, y[0] - half_y, y[1] + half_y)
    panel = Panel(grid(images, columns), "", _values("$z_1$", x), _values("$z_2$", y), extent)
    return _sheet([panel], title, left=60, bottom=50)


def principal(codes: Latents) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the codes along their two principal axes, (N, 2), and the axes' shares of variance.

    An axis points to where its largest component is positive. Needs two dimensions or more.
    """
    centred = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    variance = lengths**2
    largest = np.abs(axes).argmax(1)
    axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return centred @ axes[:2].T, variance[:2] / max(variance.sum(), np.finfo(float).tiny)


def codes(
    latents: Latents, labels: NDArray[np.uint8] | None, names: Sequence[str], title: str
) -> Figure:
    """Draw codes as points, coloured by label with a colour bar; beyond two dimensions, their PCA.

    labels: (N,) indices of `names`; None draws all points in one colour.
    """
    figure = Figure(figsize=(8, 7), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    points, axis_names = _plane(latents)
    axes.set_xlabel(axis_names[0], fontsize=11)
    axes.set_ylabel(axis_names[1], fontsize=11)
    axes.set_title(title, fontsize=13)
    axes.set_aspect("equal", "datalim")
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    size = float(np.clip(40000 / len(points), 3, 30))
    across, up = points.T
    if labels is None:
        axes.scatter(across, up, s=size, linewidths=0)
        return figure
    palette = colormaps["tab20" if len(names) > 10 else "tab10"]
    bounds = BoundaryNorm(np.arange(len(names) + 1) - 0.5, palette.N)
    dots = axes.scatter(across, up, s=size, c=labels, cmap=palette, norm=bounds, linewidths=0)
    bar = figure.colorbar(dots, ticks=range(len(names)), label="label", shrink=0.9)
    bar.ax.set_yticklabels(names)
    bar.ax.tick_params(length=0)
    return figure


def traversal(
    images: Pixels, pair: Pixels, values: NDArray[np.floating], rows: Sequence[str], title: str
) -> Figure:
    """Draw each dimension's way through `values`, one row for each name in `rows`.

    images: uint8 (rows * values, H, W, C), row after row. pair: the image and what its code
    decodes to, (2, H, W, C), drawn at the left.
    """
    height, width = images.shape[1:3]
    across = (np.arange(len(values)) + 0.5) * (width + 1)
    down = (np.arange(len(rows)) + 0.5) * (height + 1)
    x = Ticks("value of the dimension", across, [f"{v:g}" for v in np.round(values, 2)])
    way = Panel(grid(images, len(values), gap=1), "", x, Ticks("", down, rows))
    beside = np.full((height * max(len(rows), 2) + len(rows), width, 1), WHITE, np.uint8)
    beside = np.repeat(beside, images.shape[3], 2)
    beside[: 2 * height] = grid(pair, 1)
    at = Ticks(at=[height / 2, 3 * height / 2], texts=["image", "decoded"])
    return _sheet([Panel(beside, "", y=at), way], title, left=66, bottom=50, between=130)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes each time."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _plane(latents: Latents) -> tuple[NDArray[np.floating], list[str]]:
    """Return points (N, 2) and the names of their axes."""
    if latents.shape[1] == 2:
        return latents, ["$z_1$", "$z_2$"]
    points, shares = principal(latents)
    names = [f"principal axis {k + 1}: {s:.1%} of the variance" for k, s in enumerate(shares)]
    return points, names


def _values(label: str, span: Span) -> Ticks:
    """Return ticks at whole numbers within a span, at halves where there are few."""
    step = 0.5 if span[1] - span[0] <= 2 else 1.0
    at = np.arange(np.ceil(span[0] / step), np.floor(span[1] / step) + 1) * step
    return Ticks(label, at.tolist(), [f"{v:g}" for v in at])


def _sheet(
    panels: Sequence[Panel],
    title: str,
    *,
    left: int,
    bottom: int,
    stacked: bool = False,
    between: int = BETWEEN,
) -> Figure:
    """Return a figure of panels, side by side or stacked, all enlarged by one whole factor."""
    sides = np.array([p.picture.shape[1::-1] for p in panels])
    zoom = max(1, WIDTH // int(sides[:, 0].max() if stacked else sides[:, 0].sum()))
    sides *= zoom
    gaps = between * (len(panels) - 1)
    inner = sides.sum(0) + gaps
    width = left + EDGE + int(sides[:, 0].max() if stacked else inner[0])
    top = TITLE + NAMES * any(panel.title for panel in panels)
    height = top + bottom + int(inner[1] if stacked else sides[:, 1].max())
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.suptitle(title, fontsize=13, y=1 - 8 / height, va="top")
    x, y = left, height - top
    for panel, (wide, tall) in zip(panels, sides.tolist(), strict=True):
        box = (x / width, (y - tall) / height, wide / width, tall / height)
        _draw(figure.add_axes(box), panel)
        x, y = (x, y - tall - between) if stacked else (x + wide + between, y)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    picture = panel.picture if panel.picture.shape[2] == 3 else np.repeat(panel.picture, 3, 2)
    height, width, _ = picture.shape
    extent = panel.extent or (0, width, height, 0)
    axes.imshow(picture, interpolation="nearest", aspect="auto", extent=extent)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel(panel.x.label, fontsize=11)
    axes.set_ylabel(panel.y.label, fontsize=11)
    axes.set_xticks(panel.x.at, panel.x.texts, fontsize=9)
    axes.set_yticks(panel.y.at, panel.y.texts, fontsize=9)
    plain = panel.extent is None
    axes.tick_params(length=0 if plain else 3)
    for spine in axes.spines.values():
        spine.set_visible(not plain)
