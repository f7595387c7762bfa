"""What `vaecodec bench` prints and writes of data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vaecodec.commands.inputs import describe
from vaecodec.commands.results import stages
from vaecodec.commands.tables import table

if TYPE_CHECKING:
    from vaecodec.dataset_bench import DatasetRow, Measured

HEADS = ("quality", "bytes", "bits/image", "of symbols", "MSE", "PSNR dB")
TIME_HEADS = ("encode images/s", "decode images/s")
RIVAL_HEADS = ("format", "bytes/image", "bits/image", "MSE")


def data(found: Sequence[Measured]) -> dict[str, Any]:
    """Return what was measured as JSON data; what is not a finite number is null."""
    sets = [asdict(measured) for measured in found]
    for row in (row for measured in sets for row in measured["rows"]):
        row["psnr"] = row["psnr"] if math.isfinite(row["psnr"]) else None
    return {"data_sets": sets}


def text(found: Sequence[Measured]) -> str:
    """Return tables of each data set."""
    return "\n\n".join(map(_text, found))


def _text(measured: Measured) -> str:
    elbo = measured.elbo
    total = elbo.reconstruction + elbo.divergence
    size = describe(measured.images, measured.height, measured.width)
    rows = [_line(row, measured.images) for row in measured.rows]
    rivals = [
        (rival.name, f"{rival.bytes:.1f}", f"{8 * rival.bytes:.1f}", f"{rival.mse:.2f}")
        for rival in measured.rivals
    ]
    return "\n\n".join(
        [
            f"{measured.name}: {size}\nnegative ELBO {total:.2f} nats per image, "
            f"reconstruction {elbo.reconstruction:.2f} and KL {elbo.divergence:.2f}; "
            f"{elbo.bits_per_dimension:.4f} bits per dimension",
            table((*HEADS, *TIME_HEADS), rows),
            table(RIVAL_HEADS, rivals),
            stages(measured.rows, "data set"),
        ]
    )


def _line(row: DatasetRow, images: int) -> list[str]:
    speeds = [f"{images / seconds['total']:,.0f}" for seconds in (row.encode, row.decode)]
    return [
        f"{row.quality:g}",
        f"{row.bytes:,}",
        f"{8 * row.bytes / images:.2f}",
        f"{8 * row.payload / images:.2f}",
        f"{row.mse:.2f}",
        f"{row.psnr:.2f}",
        *speeds,
    ]
