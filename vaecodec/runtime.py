"""ONNX Runtime: which provider runs the graphs, and a graph as a function of named arrays.

The only module that names onnxruntime, and it imports it when the first graph is made. Its own
logging stays silent: what it has to say becomes the text of an error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vaecodec import sessions
from vaecodec.diagnosis import captured, cuda_reason, driver_problem, one_line
from vaecodec.errors import ModelError, ProviderError, VaecodecError
from vaecodec.sessions import Device

__all__ = ["Device", "Graph", "Provider", "cuda_problem", "resolve"]

Provider = Literal["auto", "cpu", "cuda"]

WHEELS = ("onnxruntime", "onnxruntime_gpu")
"""Distributions that own the one folder onnxruntime/, as the names of their metadata begin."""

_INSTALL = "pip install 'vaecodec[cpu]', or pip install 'vaecodec[gpu]' for CUDA"
_REINSTALL = f"run pip uninstall -y onnxruntime onnxruntime-gpu, then {_INSTALL}"
_CUDA_INSTALL = "run pip uninstall -y onnxruntime, then pip install 'vaecodec[gpu]'"

# float32 x (1, 1, 2, 2) -> Conv -> ConvTranspose -> y (1, 1, 2, 2), both with a 2x2 kernel of ones:
# what a photo bundle needs of cuDNN, which ONNX Runtime loads only when a convolution runs.
_PROBE = bytes.fromhex(
    "08083a89010a0f0a01780a01771201632204436f6e760a180a01630a0177120179220d436f6e765472616e73706f73"
    "651201672a1f0801080108020802100122100000803f0000803f0000803f0000803f4201775a1b0a017812160a1408"
    "0112100a0208010a0208010a0208020a020802621b0a017912160a14080112100a0208010a0208010a0208020a0208"
    "0242040a001011"
)

_NOT_THE_GRAPH = re.compile(r"cuda|cudnn|cublas|allocate memory|bad_alloc", re.IGNORECASE)


def resolve(provider: str) -> Device:
    """Return the device on which the transforms run; what is found out is kept for the process.

    "auto" is CUDA where a session really gets it, and the CPU elsewhere: `cuda_problem` says why.

    Raises:
        ProviderError: no ONNX Runtime is installed; "cuda" cannot work, with the reason; both
            wheels of ONNX Runtime are installed, for "auto" and "cuda" ("cpu" does not mind).
        ValueError: not one of "auto", "cpu", "cuda".
    """
    if provider not in get_args(Provider):
        raise ValueError(f"provider {provider!r} is none of {', '.join(get_args(Provider))}")
    runtime = _onnxruntime()
    if provider == "cpu":
        return "cpu"
    _refuse_both_wheels(runtime)
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if provider == "cuda":
        raise ProviderError(f"CUDA cannot be used: {problem}; the provider cpu needs none of it")
    return "cpu"


@cache
def cuda_problem() -> str | None:
    """Return why CUDA cannot be used and what to do about it; None where a session gets it.

    The cheap checks come first: on a machine without CUDA this takes a millisecond.

    Raises:
        ProviderError: no ONNX Runtime is installed.
    """
    runtime = _onnxruntime()
    # get_available_providers() lists what was compiled in, which proves nothing by being there.
    if not (
        runtime.cuda_version or sessions.PROVIDERS["cuda"] in runtime.get_available_providers()
    ):
        if sys.platform == "darwin":
            return "there is no CUDA on macOS"
        return f"the CPU build of ONNX Runtime is installed; {_CUDA_INSTALL}"
    return driver_problem() or _session_problem(runtime)


class Graph:
    """An ONNX graph as a function of named arrays; calls from several threads are safe.

    Args:
        model: the graph, or the file that holds it. Its weights must be inside.
        provider: what `resolve` returned.
        threads: threads of one call; None leaves it to ONNX Runtime, one per physical core, except
            where this process may use only some of them (taskset, Slurm): then one for each.
        level: what ONNX Runtime may rewrite in the graph: none, basic, extended or all. Integers,
            those of a prior, are the same at every level; real numbers differ in rounding.
        weights: contents of the files that hold weights which the graph does not, by the names
            that it gives them; no other file is ever read for it.

    Attributes:
        inputs, outputs: names, in the order of the graph.

    Raises:
        ModelError: the file cannot be read, or is no graph that ONNX Runtime can run by itself.
        ProviderError: no ONNX Runtime is installed, or the session did not get `provider`.
        ValueError: `threads` is not positive, or `provider` or `level` is unknown.
    """

    def __init__(
        self,
        model: bytes | Path,
        provider: Device = "cpu",
        threads: int | None = None,
        level: str = "all",
        *,
        weights: Mapping[str, bytes] | None = None,
    ) -> None:
        if provider not in get_args(Device):
            raise ValueError(f"a graph runs on cpu or cuda, not {provider!r}: call resolve() first")
        resolve(provider)
        runtime = _onnxruntime()
        options = sessions.options(runtime, threads, level)
        if provider == "cpu" and sessions.shares_memory(runtime):
            options.add_session_config_entry("session.use_env_allocators", "1")
        if weights:
            sessions.lend(runtime, options, weights)
        data = model if isinstance(model, bytes) else _read(model)
        self._name = "a graph of the model" if isinstance(model, bytes) else str(model)
        self._provider = provider
        try:
            self._session = sessions.begin(runtime, data, options, provider)
        except Exception as error:  # noqa: BLE001 - its errors have no other base in common
            raise self._failure("loaded", error) from None
        if sessions.PROVIDERS[provider] not in self._session.get_providers():
            raise ProviderError(f"ONNX Runtime did not take {provider} for {self._name}")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if odd := [x.name for x in (*inputs, *outputs) if not x.type.startswith("tensor(")]:
            raise ModelError(f"{self._name} cannot be used: its {odd[0]!r} is not an array")
        self.inputs: tuple[str, ...] = tuple(x.name for x in inputs)
        self.outputs: tuple[str, ...] = tuple(x.name for x in outputs)

    def __call__(self, **inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the outputs, in the order of the graph, for arrays of the dtypes it declares.

        Raises:
            ModelError: names, dtypes or shapes are not those of the graph, or it fails on them.
            ProviderError: memory ran out, or CUDA failed.
        """
        try:
            return tuple(self._session.run(None, inputs))
        except Exception as error:  # noqa: BLE001 - as above
            raise self._failure("run", error) from None

    def _failure(self, verb: str, error: Exception) -> VaecodecError:
        text = one_line(str(error)) or type(error).__name__
        if _NOT_THE_GRAPH.search(text):
            return ProviderError(f"ONNX Runtime failed on {self._provider}: {text}")
        return ModelError(f"{self._name} cannot be {verb}: {text}")


@cache
def _onnxruntime() -> Any:
    """Return the module, made silent."""
    # Since 1.29 its wheels report to Microsoft from the import on, also on Linux and macOS.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        # On some boards and virtual machines the import logs that it knows no graphics card.
        with captured():
            import onnxruntime
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise ProviderError(f"ONNX Runtime is not installed: {_INSTALL}") from None
        raise _broken(error) from error
    except Exception as error:  # half an installation fails in any way
        raise _broken(error) from error
    if getattr(onnxruntime, "__file__", None) is None:
        raise ProviderError(
            "of ONNX Runtime only an empty folder is left, as when one of its two wheels was "
            f"uninstalled while both were there: {_REINSTALL}"
        )
    onnxruntime.set_default_logger_severity(sessions.FATAL)
    onnxruntime.disable_telemetry_events()  # for versions that do not know the variable
    return onnxruntime


def _broken(error: Exception) -> ProviderError:
    return ProviderError(
        f"ONNX Runtime is installed but cannot be imported ({one_line(str(error))}): {_REINSTALL}"
    )


def _refuse_both_wheels(runtime: Any) -> None:
    """Raise ProviderError if both wheels are installed over each other, where the last one won.

    Their metadata is looked for beside the folder: importlib.metadata takes 20 ms to import.
    """
    site = Path(runtime.__file__).parents[1]
    if all(any(site.glob(f"{wheel}-*.dist-info")) for wheel in WHEELS):
        raise ProviderError(
            "onnxruntime and onnxruntime-gpu are installed into one folder, where each overwrites "
            f"the other: {_REINSTALL}; until then the provider cpu may still work"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _session_problem(runtime: Any) -> str | None:
    """Return what keeps a session from running convolutions on CUDA, by trying it."""
    failure = ""
    with captured() as log:
        runtime.set_default_logger_severity(sessions.ERROR)  # names the library that is missing
        try:
            runtime.preload_dlls()  # NVIDIA's libraries where pip put them
            options = sessions.options(runtime, 1, "all")
            session = sessions.begin(runtime, _PROBE, options, "cuda")
            session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
            if sessions.PROVIDERS["cuda"] in session.get_providers():
                return None
        except Exception as error:  # noqa: BLE001 - as in Graph; told to the caller
            failure = str(error)
        finally:
            runtime.set_default_logger_severity(sessions.FATAL)
    return cuda_reason(failure, "\n".join(log), runtime.cuda_version or "")
