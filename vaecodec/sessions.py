"""Sessions of ONNX Runtime: how it is told to run a graph, and why so.

The module itself is handed in: `vaecodec.runtime` imports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from vaecodec.errors import ProviderError

__all__ = ["ERROR", "FATAL", "PROVIDERS", "Device", "begin", "lend", "options", "shares_memory"]

Device = Literal["cpu", "cuda"]

ERROR, FATAL = 3, 4
"""Severities of its log; nothing is logged as fatal but a crash."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_OPTIONS = {
    # Full float32: pixels then differ from a CPU's by the order of sums alone, as between two
    # CPUs. TF32 keeps 11 bits, and would save little in networks this small.
    "use_tf32": "0",
    # The default, EXHAUSTIVE, tunes anew for every shape, and images have many.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the memory it holds each time, on a card that others use too.
    "arena_extend_strategy": "kSameAsRequested",
}
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def options(runtime: Any, threads: int | None, level: str) -> Any:
    """Return the options of a session, as the arguments of `vaecodec.runtime.Graph` say.

    Raises ValueError for threads or a level that cannot be.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"{threads} threads; at least 1 is needed")
    if level not in _LEVELS:
        raise ValueError(f"level {level!r} is none of {', '.join(_LEVELS)}")
    found = runtime.SessionOptions()
    found.intra_op_num_threads = _default_threads() if threads is None else threads
    found.inter_op_num_threads = 1
    # What a call took is kept for the next one, which saves a gradient half of its time. A plan of
    # it, one block for each shape beside what the first call took, would double that.
    found.enable_mem_pattern = False
    found.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    found.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[level])
    found.log_severity_level = FATAL
    # Each graph has threads of its own. Left to spin after a call, they take the cores from the
    # next graph: a 768x512 picture then encodes in 151 ms instead of 51 (two cores). Nor do they
    # spin within one: as fast on an idle machine, and on a busy one it saves a quarter.
    found.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in other files are looked for where none can be: a model reads nothing but itself.
    found.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    return found


def lend(runtime: Any, options: Any, weights: Mapping[str, bytes]) -> None:
    """Let a session take weights from files in memory. Raises ProviderError where it cannot."""
    try:
        take = options.add_external_initializers_from_files_in_memory
    except AttributeError:
        raise ProviderError(
            f"this needs ONNX Runtime 1.24 or newer; {runtime.__version__} is installed: "
            "upgrade it, or encode with --effort 0"
        ) from None
    take(list(weights), list(weights.values()), [len(content) for content in weights.values()])


def _default_threads() -> int:
    """Return 0, ONNX Runtime's own choice, unless the process is kept from some of the cores."""
    if sys.platform != "linux":
        return 0
    usable = len(os.sched_getaffinity(0))
    return usable if usable < (os.cpu_count() or 1) else 0


def begin(runtime: Any, data: bytes, options: Any, provider: Device) -> Any:
    """Return a session that runs a graph; raises what ONNX Runtime does."""
    providers: list[Any] = [PROVIDERS["cpu"]]
    if provider == "cuda":
        providers.insert(0, (PROVIDERS["cuda"], _CUDA_OPTIONS))
    # Its fallback would print to stdout and try again on the CPU.
    return runtime.InferenceSession(data, options, providers=providers, enable_fallback=False)


@cache
def shares_memory(runtime: Any) -> bool:
    """Let all graphs of the process take their memory from one place; return whether they can.

    One graph runs after the other, and each would keep what its largest call took: 1049 MiB instead
    of 646 to encode 6 megapixels at the default effort.
    """
    try:
        place = runtime.OrtMemoryInfo(
            "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
        )
        runtime.create_and_register_allocator(place, runtime.OrtArenaCfg({}))
    except Exception:  # noqa: BLE001 - it is there already, or this version knows no such thing
        return False
    return True
