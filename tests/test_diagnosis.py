"""Every installation of ONNX Runtime that does not work is told in one line, with its fix."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vaecodec import diagnosis, runtime
from vaecodec.errors import ProviderError
from vaecodec.runtime import Graph, cuda_problem, resolve


def assert_one_line(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert "onnxruntime_src" not in text
    for part in parts:
        assert part in text


# Installations that do not work, in folders made for it and with an ONNX Runtime made for it


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test, and the tests after it, find ONNX Runtime anew."""
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    runtime._onnxruntime.cache_clear()
    cuda_problem.cache_clear()
    yield
    runtime._onnxruntime.cache_clear()
    cuda_problem.cache_clear()


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for packages before all others."""
    request.getfixturevalue("forget")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


FAKE = """
cuda_version = {cuda_version!r}
set_default_logger_severity = lambda severity: None
disable_telemetry_events = lambda: None
get_available_providers = lambda: ["CPUExecutionProvider"]
"""


def install(site: Path, *distributions: str, source: str = FAKE.format(cuda_version="")) -> None:
    (site / "onnxruntime").mkdir()
    (site / "onnxruntime/__init__.py").write_text(source)
    for name in distributions:
        (site / f"{name}.dist-info").mkdir()


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("provider", ["auto", "cpu", "cuda"])
def test_without_onnx_runtime_the_two_commands_are_named(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError) as error:
        resolve(provider)
    assert_one_line(error, "not installed", "pip install 'vaecodec[cpu]'", "'vaecodec[gpu]'")


@pytest.mark.usefixtures("forget")
def test_a_graph_without_onnx_runtime_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match="not installed"):
        Graph(b"")


def test_a_folder_left_by_an_uninstallation_is_named_with_the_fix(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "onnxruntime/capi").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(site)])  # a package anywhere on it would win
    with pytest.raises(ProviderError) as error:
        resolve("cpu")
    assert_one_line(error, "only an empty folder", "pip uninstall -y onnxruntime onnxruntime-gpu")


@pytest.mark.parametrize(
    "source", ["import no_such_module", "from os import no_such_name", "raise OSError('a\\nb')"]
)
def test_a_broken_import_is_told_with_the_fix(source: str, site: Path) -> None:
    install(site, "onnxruntime-1.31.1", source=source)
    with pytest.raises(ProviderError) as error:
        resolve("cpu")
    assert_one_line(error, "cannot be imported (", "pip uninstall -y onnxruntime onnxruntime-gpu")


@pytest.mark.parametrize("provider", ["auto", "cuda"])
@pytest.mark.parametrize("cuda_version", ["", "13.0"])  # of the wheel that came last
def test_both_wheels_together_are_told_with_the_fix(
    provider: str, cuda_version: str, site: Path
) -> None:
    source = FAKE.format(cuda_version=cuda_version)
    install(site, "onnxruntime-1.31.1", "onnxruntime_gpu-1.31.1", source=source)
    with pytest.raises(ProviderError) as error:
        resolve(provider)
    assert_one_line(error, "one folder", "pip uninstall -y onnxruntime onnxruntime-gpu, then pip")
    assert resolve("cpu") == "cpu"


def test_other_distributions_of_like_names_are_no_second_wheel(site: Path) -> None:
    install(site, "onnxruntime-1.31.1", "onnxruntime_extensions-0.14", "onnxruntime_genai-0.9")
    assert resolve("auto") == "cpu"


def test_cuda_asked_of_the_cpu_build_names_the_other_wheel(site: Path) -> None:
    install(site, "onnxruntime-1.31.1")
    with pytest.raises(ProviderError) as error:
        resolve("cuda")
    if sys.platform != "darwin":
        assert_one_line(error, "CPU build", "pip uninstall -y onnxruntime, then pip install")
    with pytest.raises(ProviderError, match="CUDA cannot be used"):
        Graph(b"", "cuda")
    assert resolve("auto") == "cpu"


def test_what_the_import_logs_is_not_shown(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = "import os, warnings; os.write(2, b'GPU device discovery failed'); print('x')\n"
    noise += "warnings.warn('Failed to register bundled CUDA plugin')\n"
    install(site, "onnxruntime-1.31.1", source=noise + FAKE.format(cuda_version=""))
    assert resolve("auto") == "cpu"
    assert capfd.readouterr() == ("", "")


def test_a_closed_stderr_and_a_disk_without_room_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", refuse)
        with diagnosis.captured() as log:
            os.write(2, b"lost")
            print("kept")
        assert log == ["", "kept\n"]
        patch.setattr(os, "dup", refuse)
        with diagnosis.captured() as log:
            print("kept")
        assert log == ["", "kept\n"]


# CUDA that fails: what the driver says, and what the GPU wheel was seen to log


@pytest.mark.skipif(sys.platform == "win32", reason="the driver has another name there")
def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert "no NVIDIA driver was found (libcuda.so.1" in str(diagnosis.driver_problem())


def test_a_driver_without_a_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(_: int, text: Any) -> None:
        text._obj.value = b"no CUDA-capable device is detected"

    driver = SimpleNamespace(cuInit=lambda _: 100, cuGetErrorString=describe)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert "(error 100, no CUDA-capable device is detected)" in str(diagnosis.driver_problem())
    driver.cuInit = lambda _: 0
    assert diagnosis.driver_problem() is None


LOADING = (
    "\x1b[1;31m2025-07-31 15:09:16.647314988 [E:onnxruntime:Default, provider_bridge_ort.cc:2195 "
    "TryGetProviderInfo_CUDA] /onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778"
    " onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : "
)
CALLING = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:123 std::conditional_t<THRW, "
    "void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, "
    "ERRTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; "
    "std::conditional_t<THRW, void, onnxruntime::common::Status> = void] "
)
LOGS = {
    "a library on Linux": (
        f"{LOADING}Failed to load library libonnxruntime_providers_cuda.so with error: "
        "libcublasLt.so.13: cannot open shared object file: No such file or directory\x1b[m",
        "",
        "the library libcublasLt.so.13 is missing; pip install 'vaecodec[gpu]'",
    ),
    "a library on Windows": (
        'Error loading "C:\\ort\\onnxruntime_providers_cuda.dll" which depends on '
        '"cublasLt64_13.dll" which is missing.',
        "",
        "the library cublasLt64_13.dll is missing",
    ),
    "cuDNN, where CUDA loads": (
        "",
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Non-zero status code returned while running "
        "Conv node. Name:'' Status Message: Conv requires cuDNN",
        "the library cuDNN is missing",
    ),
    "an old driver": (
        "",
        f"[ONNXRuntimeError] : 1 : FAIL : {CALLING}{CALLING}CUDA failure 35: CUDA driver version "
        "is insufficient for CUDA runtime version ; GPU=0 ; hostname=me ; file=/x/cuda.cc ; line=2",
        "used: CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version; see "
        "that the driver and the card suit CUDA 13",
    ),
    "nothing at all": ("", "", "a session got only the CPU and no reason was told"),
}


def gpu_build(log: str, failure: str) -> SimpleNamespace:
    """ONNX Runtime's GPU build where CUDA does not work: it logs and goes on with the CPU."""
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    def run(*_: Any) -> None:
        if failure:
            raise RuntimeError(failure)

    def create(*_: Any, providers: Any, enable_fallback: bool) -> SimpleNamespace:
        assert providers[0][0] == "CUDAExecutionProvider"
        assert not enable_fallback
        os.write(2, log.encode())
        return session

    session.run = run
    return SimpleNamespace(
        __file__="/nowhere/onnxruntime/__init__.py",
        cuda_version="13.0",
        severities=(severities := []),
        set_default_logger_severity=severities.append,
        disable_telemetry_events=lambda: None,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: print("Skip loading CUDA since torch is imported."),
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda *_: None),
        ExecutionMode=SimpleNamespace(ORT_SEQUENTIAL=0),
        GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL=99),
        InferenceSession=create,
    )


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("name", LOGS)
def test_cuda_that_fails_is_never_a_silent_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log, failure, expected = LOGS[name]
    build = gpu_build(log, failure)
    monkeypatch.setitem(sys.modules, "onnxruntime", build)  # type: ignore[arg-type]
    monkeypatch.setattr(runtime, "driver_problem", lambda: None)
    with pytest.raises(ProviderError) as error:
        resolve("cuda")
    assert_one_line(error, expected)
    with pytest.raises(ProviderError, match="CUDA cannot be used"):
        Graph(b"", "cuda")
    assert resolve("auto") == "cpu"
    assert build.severities == [4, 3, 4]  # silent, errors while CUDA is tried once, silent
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("forget")
def test_the_gpu_build_without_a_driver_is_told_so_before_cuda_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = gpu_build("", "")
    build.preload_dlls = lambda: pytest.fail("loaded CUDA")
    monkeypatch.setitem(sys.modules, "onnxruntime", build)  # type: ignore[arg-type]
    monkeypatch.setattr(runtime, "driver_problem", lambda: "no driver")
    with pytest.raises(ProviderError, match="CUDA cannot be used: no driver; the provider cpu"):
        resolve("cuda")
