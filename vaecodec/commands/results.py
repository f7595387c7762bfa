"""What `vaecodec bench` prints and writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vaecodec.commands.tables import table
from vaecodec.machine import machine, versions

if TYPE_CHECKING:
    from vaecodec.bench import Bench, Row
    from vaecodec.dataset_bench import DatasetRow
    from vaecodec.speed import Speed

HEADS = ("image", "quality", "kB", "bpp", "PSNR dB", "MS-SSIM")
TIME_HEADS = ("encode ms", "Mpixel/s", "decode ms", "Mpixel/s")

STAGES = {
    "container": "container",
    "encoder": "encoder network",
    "side": "side network",
    "search": "search",
    "prior": "prior",
    "quantise": "quantise",
    "entropy": "entropy coding",
    "decoder": "decoder network",
    "rest": "rest",
    "total": "total",
    "read": "read the image file",
    "write": "write a PNG",
}


def facts(bench: Bench) -> dict[str, Any]:
    """Return what was measured with: model, provider, threads, runs, machine, versions."""
    codec = bench.codec
    return {
        "model": codec.bundle.name,
        "fingerprint": codec.bundle.fingerprint.hex(),
        "provider": codec.provider,
        "threads": bench.threads,
        "runs": bench.runs,
        "machine": machine(codec.provider),
        "versions": versions(),
    }


def facts_text(facts: dict[str, Any]) -> str:
    """Return the facts in three lines."""
    on = facts["machine"]
    gpu = f"; {on['gpu']}" if "gpu" in on else ""
    return "\n".join(
        [
            f"{facts['model']} ({facts['fingerprint']}), provider {facts['provider']}, "
            f"threads {facts['threads'] or 'one per core'}, median of {facts['runs']}",
            f"{on['processor']}, {on['cores']} cores{gpu}; {on['system']}",
            ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        ]
    )


def rows_data(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the rows as JSON data; what is not a finite number is null."""
    return {"images": [_row_data(row) for row in rows]}


def rows_text(rows: Sequence[Row]) -> str:
    """Return a table of the rows, of all images per quality, and of the stages."""
    lines = [_line(row.image, [row]) for row in rows]
    if len({row.image for row in rows}) > 1:
        for quality in sorted({row.quality for row in rows}):
            same = [row for row in rows if row.quality == quality]
            lines.append(_line(f"all {len(same)}", same))
    return f"{table((*HEADS, *TIME_HEADS), lines)}\n\n{stages(rows, 'image')}"


def speed_data(speed: Speed) -> dict[str, Any]:
    """Return the speeds as JSON data, in seconds."""
    process = {"encode": speed.encode, "decode": speed.decode, "help": speed.help}
    return rows_data([speed.row]) | {"process": process}


def speed_text(speed: Speed) -> str:
    """Return the table of one image and the seconds of whole processes."""
    row = speed.row
    lines = [
        (f"vaecodec {command}", f"{seconds:.3f}")
        for command, seconds in (
            ("encode", speed.encode),
            ("decode", speed.decode),
            ("--help", speed.help),
        )
    ]
    size = f"{row.width}x{row.height}, in a running process:"
    return f"{size}\n{rows_text([row])}\n\n{table(('whole process', 'seconds'), lines)}"


def _row_data(row: Row) -> dict[str, Any]:
    data = asdict(row)
    for key in ("psnr", "ms_ssim"):
        data[key] = data[key] if math.isfinite(data[key]) else None
    return data


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    """Return the cells of images of one quality: sums of bytes and times, means of the rest."""
    pixels = sum(row.pixels for row in rows)
    cells = [
        name,
        f"{rows[0].quality:g}",
        f"{sum(row.bytes for row in rows) / 1000:.1f}",
        *(f"{fmean(row.bpp for row in rows):.3f}", f"{fmean(row.psnr for row in rows):.2f}"),
        f"{fmean(row.ms_ssim for row in rows):.4f}",
    ]
    for seconds in (sum(r.encode["total"] for r in rows), sum(r.decode["total"] for r in rows)):
        cells += [f"{1e3 * seconds:.1f}", f"{pixels / seconds / 1e6:.2f}"]
    return cells


def stages(rows: Sequence[Row] | Sequence[DatasetRow], each: str) -> str:
    """Return a table of the mean milliseconds of each stage; `each` row is one of what."""
    lines = [
        (
            label,
            _mean_ms([row.encode for row in rows], key),
            _mean_ms([r.decode for r in rows], key),
        )
        for key, label in STAGES.items()
        if any(key in row.encode or key in row.decode for row in rows)
    ]
    return table((f"stage, mean per {each}", "encode ms", "decode ms"), lines)


def _mean_ms(seconds: Sequence[dict[str, float]], stage: str) -> str:
    return f"{1e3 * fmean(s[stage] for s in seconds):.2f}" if stage in seconds[0] else ""
