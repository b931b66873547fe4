"""Each language shows a text from a record as text, whatever it contains."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note, printable, printable_lines
from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.printable import (
    LATEX,
    file_stem,
    html_text,
    latex_text,
    markdown_text,
    short_line,
    toml_text,
)
from momentum_bench.leaderboards.rendering.files import contents
from momentum_bench.leaderboards.rendering.model_card import model_index
from momentum_bench.leaderboards.rendering.paper_table import latex, markdown
from momentum_bench.leaderboards.rendering.terminal import print_board
from momentum_bench.leaderboards.reproduce import sweep_text
from tests.helpers.synthetic import Scores, fill, make_record, make_spec, sweep_records

PIECES = (
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\r",
    "\n",
    "\t",
    "\0",
    "\x7f",
    "$(touch x)",
    "`touch x`",
    "$x^2$",
    r"\input{/etc/passwd}",
    "\\\\[1cm]",
    "[1cm]",
    "*",
    "--",
    "%",
    "&",
    "~",
    "{}",
    "<script>alert(1)</script>",
    "<!--",
    "]]>",
    "&lt;",
    '"',
    "'",
    "onload=",
    "[red]x[/red]",
    "[/b]",
    ":bomb:",
    "[a](javascript:x)",
    "![a](http://b.c/d)",
    "https://example.org",
    "www.example.org",
    "**x**",
    "|",
    "# ",
    "- ",
    "1. ",
    "> ",
    "    ",
    "---",
    "../../up",
    "-rf",
    "=1+1",
    ",",
    ";",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u2028",
    "\u00a0",
    "\ufeff",
    "\ud800",
    "\udfff",
    "任务",
    "é",
    "🙂",
)

HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=6).map("".join)
STORED = HOSTILE.map(lambda text: text.encode(errors="ignore").decode())
"""Without halves of surrogate pairs, because no record can have them; a test below shows that."""


@given(text=HOSTILE)
def test_a_terminal_shows_a_text_and_does_not_obey_it(text: str):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())
    assert len(short_line(text)) <= 160
    assert short_line(text).isprintable()


def test_a_note_has_the_lines_that_we_gave_it(capsys: pytest.CaptureFixture[str]):
    note("error: \x1b[2J\u202e\r\n  second\ud800 line")
    assert capsys.readouterr().err == "error: ?[2J??\n  second? line\n"


UNESCAPED = {written: letter for letter, written in LATEX.items()} | {"-{}": "-"}
WORD = re.compile("|".join(map(re.escape, UNESCAPED)) + r"|[^\\{}$&#^_~%\[\]*<>|\"`]", re.DOTALL)


@given(text=HOSTILE)
@example(text="---")
def test_latex_reads_no_command_in_a_text(text: str):
    written = latex_text(text)
    words = WORD.findall(written)
    assert "".join(words) == written  # nothing but letters and the escapes of our table
    assert "".join(UNESCAPED.get(word, word) for word in words) == printable(text)
    assert "--" not in written


@given(text=HOSTILE)
@example(text="1) x")
@example(text="+ x")
def test_markdown_reads_a_text_as_a_text(text: str):
    parser = MarkdownIt("commonmark").enable("table")
    shown = printable(text).strip()
    for written in (markdown_text(text), f"| a |\n| --- |\n| {markdown_text(text)} |"):
        inline = [token for token in parser.parse(written) if token.type == "inline"]
        assert {child.type for token in inline for child in token.children or ()} <= {"text"}
        found = inline[-1].content if inline else ""
        rendered = "".join(child.content for child in inline[-1].children or ()) if found else ""
        assert rendered == shown
    assert "://" not in markdown_text(text)
    assert "www." not in markdown_text(text)


class Texts(HTMLParser):
    """The texts, tags and attributes of HTML."""

    def __init__(self, text: str):
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    unknown_decl = handle_pi = handle_comment


@given(text=HOSTILE)
def test_html_reads_a_text_as_a_text(text: str):
    page = Texts(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    assert page.tags == [("p", [("title", printable_lines(text))])]
    assert "".join(page.texts) == printable_lines(text)
    assert html_text(html_text(text)) == html_text(text)


@given(text=STORED)
def test_toml_gives_a_text_back_and_a_terminal_may_show_it(text: str):
    written = toml_text(text)
    assert written.isprintable()
    assert tomllib.loads(f"text = {written}") == {"text": text}


@given(text=HOSTILE)
def test_a_csv_gives_a_text_back_and_no_formula(text: str):
    written = csv_text([{"first": text, "second": "x"}], ("first", "second"))
    _, (cell, second) = csv.reader(io.StringIO(written, newline=""), strict=True)
    assert (cell.removeprefix("'") if text[:1] in "=+-@\t\r" else cell, second) == (text, "x")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@given(text=HOSTILE, other=HOSTILE)
def test_a_text_as_a_file_name_is_a_plain_name_of_its_own(text: str, other: str):
    stem = file_stem(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", stem)
    assert (stem == file_stem(other)) == (text == other)


@pytest.mark.parametrize("field", ["task", "model", "optimizer", "protocol"])
def test_a_record_with_half_of_a_surrogate_pair_is_not_whole(tmp_path: Path, field: str):
    """No file could be written with such a text, so it counts for no leaderboard. `check` refuses it too."""
    spec = make_spec(**{field: "\ud800"})
    store = fill(tmp_path, [make_record(spec, Scores())])
    assert store.records() == []
    assert store.is_damaged(spec.run_id)
    assert any(spec.run_id in line for line in departures(tmp_path))
    spec = make_spec(**{field: "\U0001f642"})  # written as a whole pair
    assert len(fill(tmp_path, [make_record(spec, Scores())]).records()) == 1


@given(task=STORED, model=STORED, optimizer=STORED, version=STORED)
@example(task="", model="", optimizer=":bomb:", version="")
@example(task="[/b]", model="run[red]x\x1b[2J", optimizer="\u202ea\n", version=":bomb:")
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_a_whole_leaderboard_of_hostile_texts(task: str, model: str, optimizer: str, version: str):
    arms = {"sgd": {}, optimizer: {"momentum": 0.9}}
    fixed = {"task": task, "model": model, "task_version": version, "model_revision": version}
    records = sweep_records(lambda spec: Scores(test_metric=spec.seed / 200), arms=arms, **fixed)
    board = board_of(records)
    files = contents(board)
    for name, content in files.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?", name)
        if isinstance(content, str):
            content.encode()
    page = files["index.html"]
    assert isinstance(page, str)
    assert [tag for tag, _ in Texts(page).tags].count("script") == 1
    assert all(line.isprintable() for line in page.split("\n"))
    for text in (latex(board), markdown(board), model_index(board)):
        assert all(line.isprintable() for line in text.split("\n"))
    console = Console(width=200, file=io.StringIO())
    print_board(board, console)
    assert isinstance(console.file, io.StringIO)
    assert all(line.isprintable() for line in console.file.getvalue().split("\n"))
    for row in board.rows:
        if row.arm[0] != "sgd":  # the built-in one, whose hyperparameters are checked
            with suppress(UserError):  # `:` begins a setting, so no sweep can name such an optimizer
                assert all(line.isprintable() for line in sweep_text(row).split("\n"))
    assert json.loads(json.dumps(board.notes)) == board.notes
