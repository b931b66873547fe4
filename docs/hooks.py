"""Pages of the manual that are made when it is built, so that no copy of anything can go out of date.

mkdocs loads this file (`hooks` in mkdocs.yml). The page of the command line is made from the command line
itself; the changelog and the page for contributors are the files at the top of the repository.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from momentum_bench.harness.cli.main import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "momentum-bench"
FROM_THE_TOP = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages that are files at the top of the repository: the page, and the file."""

INTRODUCTION = """\
# Command line

All commands, with every option as `--help` says it. This page is made from the program when the manual is
built.

`_` and `-` may both be used in the name of an option: `--learning_rates` is `--learning-rates`.

Exit codes: 0 when all went well; 1 when a run failed, or when `check` or `reproduce` found a difference;
2 when the command was wrong; 130 after Ctrl-C.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    pages = {"command-line.md": command_line_page()}
    pages |= {page: page_of(ROOT / name) for page, name in FROM_THE_TOP.items()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The second word of a fenced block's first line, as the manual's theme understands it.

    It is a file's name, which becomes the block's title, or says that a test runs the block.
    """
    return re.sub(r"^```(\w+) (\S+)$", _fence, markdown, flags=re.MULTILINE)


def _fence(found: re.Match[str]) -> str:
    language, word = found.groups()
    return f'```{language} title="{word}"' if "." in word else f"```{language}"


def page_of(path: Path) -> str:
    """A file at the top of the repository as a page: its links into docs/ lead to other pages."""
    text = path.read_text(encoding="utf-8").replace("](docs/", "](")
    for page, name in FROM_THE_TOP.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def command_line_page() -> str:
    """All commands of the program, as Markdown."""
    return "\n".join([INTRODUCTION, *_of_group(get_command(app), (PROGRAM,))])


def commands(command: Any, words: tuple[str, ...] = (PROGRAM,)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, and the words that call it."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, child in below.items():
        if not child.hidden:
            yield from commands(child, (*words, name))


def _of_group(group: Any, words: tuple[str, ...]) -> Iterator[str]:
    yield from _options(group, group.context_class(group, info_name=" ".join(words)))
    for called, command in commands(group, words):
        name = " ".join(called)
        context = command.context_class(command, info_name=name)
        yield f"\n## {name.removeprefix(f'{PROGRAM} ')}\n"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        yield _escaped(command.help or "") + "\n"
        yield from _options(command, context)


def _options(command: Any, context: Any) -> Iterator[str]:
    """The arguments and options of a command as a list of terms, under the headings that `--help` has."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(record)
    for panel, records in panels.items():
        if panel:
            yield f"\n**{_escaped(panel)}**\n"
        for name, help_text in records:
            yield f"\n`{name.strip()}`\n:   {_escaped(help_text) or '&nbsp;'}"


def _escaped(text: str) -> str:
    """A help text as Markdown that shows it as it is; options, and what stands in backticks, are code."""
    plain = text.replace("\\[", "[")  # what `--help` needs, so that rich takes no default for a style
    plain = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", plain)
    parts = re.split(r"(`[^`]+`)", plain)
    return "".join(part if i % 2 else _without_markup(part) for i, part in enumerate(parts))


def _without_markup(text: str) -> str:
    return re.sub(r"([\\*_\[\]{}|~^])", r"\\\1", html.escape(text, quote=False))
