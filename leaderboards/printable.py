"""Texts out of records as data: one function for each language in which they are written.

A record may come from a stranger, and its names may be anything. For a terminal see
`harness.messages.printable`; for CSV, `harness.reporting.csv_text`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from momentum_bench.harness.messages import printable, printable_lines

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_LINE = 160

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # after a rule or a line's end these begin an argument
}
"""What LaTeX prints as each character; in its first font encoding `<` would be an inverted `!`."""


def short_line(text: object) -> str:
    """The text on one line of at most 160 printable characters."""
    line = printable(text)
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


def latex_text(text: object) -> str:
    """The text in LaTeX, where no command, argument or ligature begins in it."""
    written = "".join(LATEX.get(letter, letter) for letter in printable(text))
    return re.sub("-(?=-)", "-{}", written)  # two hyphens would be printed as a dash


def markdown_text(text: object) -> str:
    """The text in GitHub's Markdown: no link, list, code, formula or HTML begins in it."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", printable(text).strip())
    escaped = escaped.replace("://", r":\/\/").replace("www.", r"www\.")
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escaped)


def html_text(value: object) -> Markup:
    """The text in HTML, also in an attribute; what is HTML already stays as it is."""
    return value if isinstance(value, Markup) else escape(printable_lines(value))


def toml_text(text: str) -> str:
    """The text as a string of TOML, whose escapes are those of JSON and `\\U` with eight digits."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)


def file_stem(name: str) -> str:
    """A file name for a text, without its ending: never a folder, a hidden file or an option.

    Different texts have different file names: one that had to change carries a digest of the text.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-")[:80]
    if safe and safe == name:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe or 'name'}-{digest}"
