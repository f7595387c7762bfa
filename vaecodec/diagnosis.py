"""What keeps CUDA from working, in one sentence: asked of the driver, read from what was logged."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO

__all__ = ["captured", "cuda_reason", "driver_problem", "one_line"]

MAX_TEXT = 300  # characters of one message that are passed on

_MISSING_LIBRARY = re.compile(
    r'([\w.+-]+): cannot open shared object|depends on "([^"]+)" which is missing|([\w.+-]+\.dll): '
)
_TELLING = re.compile(r"(?=.*(?:cuda|cudnn)).*(?:fail|error)", re.IGNORECASE)
# A place in the C++ source with the function's signature, ONNX Runtime's prefixes, colours.
_NOISE = re.compile(
    r"\S+\.(?:cc|cpp|cuh?|h):\d+ (?:[\w:<>~,&*\[\] ]*\([^()]*\)(?: const)? )?(?:\[with [^]]*\] )?"
    r"|\[ONNXRuntimeError\] : \d+ : \w+ : |\S+ \S+ \[[EF]:onnxruntime:[^]]*\] |\x1b\[[\d;]*m"
)

_redirection = threading.RLock()


def driver_problem() -> str | None:
    """Return what keeps NVIDIA's driver from working and what to do; None where it works."""
    import ctypes

    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver was found ({library} does not load); install it"
    status = driver.cuInit(0)
    if status == 0:
        return None
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    reason = (text.value or b"unknown").decode("ascii", "replace")
    return f"the NVIDIA driver does not start (error {status}, {reason}); see what nvidia-smi says"


def cuda_reason(failure: str, log: str, cuda_version: str) -> str:
    """Return why CUDA failed and what to do.

    Args:
        failure: text of the exception; empty where a session was made, but without CUDA.
        log: all that was printed and logged meanwhile.
        cuda_version: what ONNX Runtime was built for, such as "13.0".
    """
    version = cuda_version.split(".")[0]
    text = f"{failure}\n{log}"
    if library := _missing_library(text):
        return (
            f"the library {library} is missing; pip install 'vaecodec[gpu]' brings it, or install "
            f"CUDA {version} and cuDNN 9 from NVIDIA"
        )
    telling = [line for line in map(one_line, text.splitlines()) if _TELLING.search(line)]
    reason = [*telling, one_line(failure)][0] or "a session got only the CPU and no reason was told"
    return f"{reason}; see that the driver and the card suit CUDA {version}"


def _missing_library(log: str) -> str | None:
    if found := _MISSING_LIBRARY.search(log):
        return str(found[found.lastindex or 0])
    # Where CUDA itself loads, cuDNN is looked for only by the operators that want it.
    return "cuDNN" if "NOT_IMPLEMENTED" in log and "cudnn" in log.lower() else None


def one_line(text: str) -> str:
    """Return what ONNX Runtime said, without places in its source and not too long."""
    return " ".join(_NOISE.sub("", text).split(" ; GPU=")[0].split())[:MAX_TEXT]


@contextmanager
def captured() -> Iterator[list[str]]:
    """Keep prints, warnings and what C++ code writes to stderr from the user.

    They are in the list once the block has ended. The whole process's stderr is taken, so this is
    for moments only: what another thread writes there meanwhile is caught too.
    """
    log: list[str] = []
    printed = io.StringIO()
    with (
        _redirection,
        warnings.catch_warnings(record=True, action="always") as warned,
        redirect_stdout(printed),
        _sink() as sink,
        _stderr_into(sink.fileno()),
    ):
        try:
            yield log
        finally:
            sink.seek(0)
            log += [sink.read().decode("utf-8", "replace"), printed.getvalue()]
            log += [str(warning.message) for warning in warned]


def _sink() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # nowhere to write: then what is logged is lost, and only that
        return open(os.devnull, "w+b")  # noqa: PTH123 - a device, no path


@contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # closed by whoever started the process: nobody reads it
        yield
        return
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
