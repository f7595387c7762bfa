"""Running the command line as a user does."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from vaecodec.cli import cli

ROOT = Path(__file__).parent.parent


def run(*arguments, stdin=b""):
    """Result of a command that is run in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def runs(*arguments, stdin=b""):
    """Result of a command that has to succeed."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


def process(*arguments, options=(), **keywords):
    """A command as a process of its own."""
    command = [sys.executable, *options, "-m", "vaecodec", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | keywords.pop("env", {})
    return subprocess.run(
        command, env=environment, check=False, **({"capture_output": True} | keywords)
    )


def fails(folder, *arguments, stdin=b""):
    """Message of a command that says in one line why it failed and leaves `folder` as it was."""
    before = contents(folder)
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert contents(folder) == before
    return result.stderr


def contents(folder):
    """Every file below `folder`, with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
