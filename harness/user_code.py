"""Code that a user adds: Python files, which are read and run once, and what installed packages offer."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from momentum_bench.harness.errors import UserError


def source_of(path: Path, flag: str) -> bytes:
    """The content of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from error


@lru_cache
def executed(path: Path, source: bytes) -> ModuleType:
    """The module from exactly these bytes, without old byte code, and with no new file next to it.

    The code runs once in a process, no matter how often its module is needed.
    """
    name = f"momentum_bench_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def line_of(error: BaseException, path: Path | None) -> int | None:
    """The line of the user's file that caused an error; None: the error came from somewhere else."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


@lru_cache
def offered(group: str) -> tuple[metadata.EntryPoint, ...]:
    """The entry points of a group in all installed packages; looked up once in a process."""
    return tuple(metadata.entry_points(group=group))
