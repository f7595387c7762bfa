"""What a measurement was made on: the machine and the versions, as JSON data."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vaecodec import __version__

__all__ = ["machine", "versions"]

LIBRARIES = ("numpy", "pillow", "constriction", "onnxruntime", "onnxruntime-gpu")


def machine(provider: str) -> dict[str, str | int]:
    """Return processor, cores that this process may use, system; the GPU where it is used."""
    facts: dict[str, str | int] = {
        "processor": _processor(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.release()}",
    }
    return facts | ({"gpu": _gpu()} if provider == "cuda" else {})


def versions() -> dict[str, str]:
    """Return the versions of vaecodec, Python and the libraries that are installed."""
    found = {"vaecodec": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _gpu() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    asked = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return answer.splitlines()[0].strip() if answer.strip() else "unknown"
