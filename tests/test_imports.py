import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vaecodec
from tests.commands import ROOT

PACKAGE = Path(vaecodec.__file__).parent
HEAVY = {"numpy", "PIL", "onnx", "onnxruntime", "constriction", "torch"}

WHERE = {
    "onnx": {"bounds.py", "graphs.py", "trial.py"},  # for received.py, when a bundle is verified
    "onnxruntime": {"runtime.py"},
    "constriction": {"rans.py"},
    "platformdirs": {"places.py"},
    "PIL": {
        *("fitting.py", "heatmap.py", "images.py", "metadata.py", "modes.py", "orientation.py"),
        "rivals.py",
    },
    "click": {"cli.py", *(f"commands/{path.name}" for path in PACKAGE.glob("commands/*.py"))},
    "torch": set(),
    "train": set(),
}
"""Library -> the only modules that may import it when they run."""


CODE = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules, file=sys.stderr))
from vaecodec.cli import main
main()
"""


def loaded(*arguments, env=None):
    """The modules that a command imports, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stderr.rpartition("loaded:")[2].split()), done.returncode


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("encode", "--help"),
        ("decode", "--help"),
        ("info", "--help"),
        ("bench", "--help"),
        ("models", "--help"),
        ("models", "add", "--help"),
    ],
)
def test_help_loads_nothing_heavy(arguments):
    modules, status = loaded(*arguments)
    assert status == 0
    assert "vaecodec.cli" in modules
    assert not modules & HEAVY
    assert not modules & {"vaecodec.codec", "vaecodec.bundle", "importlib.metadata"}


def test_completion_and_models_load_nothing_heavy(tiny):
    words = {"COMP_WORDS": "vaecodec encode --model t", "COMP_CWORD": "3"}
    modules, _ = loaded(env=words | {"_VAECODEC_COMPLETE": "bash_complete"})
    assert "vaecodec.bundle" in modules
    assert not modules & HEAVY
    modules, status = loaded("models", tiny)
    assert status == 0
    assert not modules & HEAVY


def test_info_needs_no_onnx_runtime_and_no_pillow(tmp_path):
    (tmp_path / "empty.vz").touch()
    modules, status = loaded("info", tmp_path / "empty.vz")
    assert status == 1
    assert "vaecodec.inspection" in modules
    assert not modules & {"onnxruntime", "PIL", "constriction", "torch"}


def test_encoding_loads_no_torch(tmp_path, tiny):
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    modules, status = loaded("encode", tmp_path / "a.png", "--model", tiny, "--provider", "cpu")
    assert status == 0
    assert "onnxruntime" in modules
    assert not modules & {"torch", "onnx", "scipy", "train"}


def test_the_package_imports_nothing_heavy():
    code = f"import vaecodec, sys; sys.exit(bool(set({sorted(HEAVY)}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def imported(node):
    """Top-level names that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {(node.module or "").partition(".")[0]}
    return set()


def for_types_only(tree):
    """Statements under `if TYPE_CHECKING`."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
    return {
        inner
        for block in blocks
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for inner in ast.walk(block)
    }


@pytest.mark.parametrize("library", sorted(WHERE))
def test_each_library_is_imported_where_it_belongs(library):
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        run = set(ast.walk(tree)) - for_types_only(tree)
        if any(library in imported(node) for node in run):
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found <= WHERE[library]


def test_every_module_can_be_imported_and_states_what_it_is():
    names = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "vaecodec.")]
    assert "vaecodec.commands.encode" in names
    for name in names:
        assert importlib.import_module(name).__doc__, name
