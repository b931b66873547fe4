"""What a user adds: files of Python, read and executed once, and installed packages' offers."""

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
    """The file's content. Raises: UserError, when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from error


@lru_cache
def executed(path: Path, source: bytes) -> ModuleType:
    """The module of exactly these bytes: no stale byte code, and nothing written beside the file.

    Run once, however often it is asked for.
    """
    name = f"momentum_bench_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def line_of(error: BaseException, path: Path | None) -> int | None:
    """The line of the user's file at which it went wrong, where it went wrong inside it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


@lru_cache
def offered(group: str) -> tuple[metadata.EntryPoint, ...]:
    """What installed packages offer under a group of entry points; looked up once in a process."""
    return tuple(metadata.entry_points(group=group))
