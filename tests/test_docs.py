import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.commands import runs
from vaecodec import bundle
from vaecodec.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
START, TEST = (line for line in README.splitlines() if line.startswith("python3 -m venv"))


def users_commands() -> list[list[str]]:
    """The vaecodec commands of the README's first command line, without the program."""
    parts = [shlex.split(part) for part in START.split("&&")]
    return [part[1:] for part in parts if part[0].endswith("/vaecodec")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_figure_left_to_fill_in(page: Path) -> None:
    assert re.findall(r"@[A-Z]+@", page.read_text("utf-8")) == []


def test_the_first_command_encodes_decodes_and_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vaecodec").symlink_to(ROOT / "vaecodec")
    commands = users_commands()
    assert [command[0] for command in commands] == ["encode", "decode", "bench"]
    for command in commands:
        runs(*command)
    assert (tmp_path / "city.png").stat().st_size > (tmp_path / "city.vz").stat().st_size


def test_the_test_command_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    install = re.search(r"install .*? (-c .*?) &&", TEST)
    assert install is not None
    assert install[1] in ci
    assert TEST.endswith("python -m tests")
    assert '/bin/python" -m tests' in ci


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"image": np.zeros((20, 30, 3), np.uint8)}
    exec(code[1], names)
    assert names["image"].size == (30, 20)  # type: ignore[attr-defined]


def test_every_command_of_the_readme_exists() -> None:
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    named = set(re.findall(r"^vaecodec (\w+)", shell, re.M))
    assert named == set(cli.commands)


def test_the_default_quality_is_the_models() -> None:
    stated = re.search(r"The default, (\d+),", README)
    assert stated is not None
    assert float(stated[1]) == bundle.find().default_quality
