"""The README and the manual as tests read them: fenced blocks, and the commands in them."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
"""All that a reader is given, except the pages that are made when the manual is built."""


def script(name: str) -> ModuleType:
    """A script in `docs/`, which is no part of the package, as a module."""
    spec = importlib.util.spec_from_file_location(f"manual_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


class Block(NamedTuple):
    """A fenced block: the language, the word after it (`run`, or a file's name), and what it holds."""

    language: str
    word: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(*each) for each in found]


def lines(block: Block) -> list[str]:
    """The commands of a block: lines that end in a backslash go on."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every call of momentum-bench on a page, in blocks and in the text: as it stands, and its words.

    A launcher's call of `harness/run.py` is one of `run`.
    """
    text = page.read_text()
    shown = [line for block in blocks(page) if block.language in ("bash", "text") for line in lines(block)]
    shown += re.findall(
        r"`((?:momentum-bench|harness/run\.py) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)
    )
    shown += re.findall(r"- run: (momentum-bench .*)", text)
    for flags in re.findall(r"--our-flags '([^']+)'", text):  # of a benchmark, which hands them to `run`
        yield flags, ["run", *shlex.split(flags)]
    for line in shown:
        called = re.search(
            r"(?:^|[\s/])(momentum-bench|harness/run\.py|-m momentum_bench\.run)(?=\s|$)(.*)", line
        )
        if called is None:
            continue
        start = [] if called[1] == "momentum-bench" else ["run"]
        yield line, [*start, *shlex.split(re.split(r"\s(?:&&|\|)\s", called[2])[0], comments=True)]
