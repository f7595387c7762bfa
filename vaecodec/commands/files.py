"""What commands read and write: files and the standard streams, whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from vaecodec.errors import FormatError, ImageError, TargetError

__all__ = [
    "STREAM",
    "beside",
    "check_output",
    "named",
    "read",
    "source_name",
    "target_name",
    "write",
]

STREAM = Path("-")
"""Stands for stdin or stdout."""


def source_name(source: Path) -> str:
    """Return what an input is called in messages."""
    return "stdin" if source == STREAM else str(source)


def target_name(target: Path) -> str:
    """Return what an output is called in messages."""
    return "stdout" if target == STREAM else str(target)


def beside(source: Path, suffix: str) -> Path:
    """Return the name of an output beside its input; stdout for stdin."""
    if source == STREAM:
        return STREAM
    if source.is_dir():
        raise click.ClickException(f"{source} is a directory; name a file in it")
    return source.with_suffix(suffix)


def read(source: Path) -> bytes:
    """Return all of a file, or of stdin."""
    if source == STREAM:
        return _binary(sys.stdin, "stdin").read()
    return source.read_bytes()


@contextmanager
def named(source: Path) -> Iterator[None]:
    """Put the name of the input before what is wrong with it."""
    try:
        yield
    except (FormatError, ImageError, TargetError) as error:
        raise type(error)(f"{source_name(source)}: {error}") from error


def check_output(source: Path, target: Path, *, force: bool) -> None:
    """Raise ClickException where `target` must not, or cannot, be written; before the work."""
    if target == STREAM:
        if _binary(sys.stdout, "stdout").isatty():
            raise click.ClickException(
                "the output is binary and stdout is a terminal; name a file with -o"
            )
        return
    if target.is_dir():
        raise click.ClickException(f"{target} is a directory; name a file in it")
    if _is_device(target):
        return
    if _same_file(source, target):
        raise click.ClickException(f"{target} is the input; name another output with -o")
    if os.path.lexists(target) and not force:
        raise _exists(target)
    _check_folder(target.resolve().parent if target.is_symlink() else target.parent)


def write(target: Path, data: bytes, *, force: bool) -> None:
    """Write all of a file, or to stdout. Where it fails, `target` is what it was before.

    Raises ClickException where it fails, and where something has come to be there without `force`.
    """
    if target == STREAM:
        stream = _binary(sys.stdout, "stdout")
        stream.write(data)
        stream.flush()
    elif _is_device(target):
        target.write_bytes(data)
    else:
        _replace(target, data, force=force)


def _binary(stream: TextIO | None, name: str) -> BinaryIO:
    if stream is None:  # whoever started the process closed it
        raise click.ClickException(f"{name} is closed")
    return stream.buffer


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise click.ClickException(f"{folder} is no directory; the output cannot be written there")
    if not os.access(folder, os.W_OK):
        raise click.ClickException(f"{folder} is a directory that you cannot write to")


def _same_file(source: Path, target: Path) -> bool:
    """Return whether both are one file on disk, whatever the names."""
    with suppress(OSError):
        return source != STREAM and source.samefile(target)
    return False


def _is_device(target: Path) -> bool:
    """Return whether the file is a pipe or a device, which one writes to and cannot replace."""
    return target.exists() and not target.is_file()


def _exists(target: Path) -> click.ClickException:
    return click.ClickException(f"{target} exists; -f/--force replaces it")


def _replace(target: Path, data: bytes, *, force: bool) -> None:
    """Write a temporary file beside `target`, then give it that name."""
    target = target.resolve()  # a symbolic link stays one
    temporary = target.with_name(f".vaecodec-{os.urandom(6).hex()}.tmp")
    try:
        with temporary.open("xb") as stream:  # with the permissions of any new file
            stream.write(data)
        if force or not _linked(temporary, target):
            temporary.replace(target)
    except FileExistsError as error:
        temporary.unlink(missing_ok=True)
        raise _exists(target) from error
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _linked(temporary: Path, target: Path) -> bool:
    """Give a file another name that nothing has; return False where the disk knows no such thing.

    Raises FileExistsError: renaming would replace what another process has written meanwhile.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        return False
    temporary.unlink()
    return True
