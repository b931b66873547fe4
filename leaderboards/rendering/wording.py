"""What a leaderboard's rows were run with, in words: what all share, and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from momentum_bench.harness.records.schema import drawn
from momentum_bench.leaderboards.rows import Row


@dataclass(frozen=True)
class Context:
    """Phrases on rows: model, method, k, and every setting that departs from the protocol's.

    Attributes:
        shared: those that hold of all rows.
        own: of each setting (`Row.setting_key`), its others: pairs of a name and a phrase.
    """

    shared: list[str]
    own: dict[str, list[tuple[str, str]]]

    def of(self, row: Row) -> list[str]:
        """The phrases of a row that do not hold of all."""
        return [_with_name(*phrase) for phrase in self.own[row.setting_key]]

    def short(self, row: Row) -> list[str]:
        """As few of these, from the first, as tell apart what can be told apart."""
        settings = list(self.own.values())
        longest = max(map(len, settings))
        n = next(n for n in range(longest + 1) if _kinds(settings, n) == _kinds(settings, longest))
        return [text for _, text in self.own[row.setting_key][:n]]


def context(rows: Sequence[Row]) -> Context:
    """The context of rows, one at least for a phrase to be shared."""
    phrases = {row.setting_key: _phrases(row) for row in rows}
    common = set.intersection(*map(set, phrases.values())) if phrases else set()
    first = next(iter(phrases.values()), [])
    return Context(
        [_with_name(*phrase) for phrase in first if phrase in common],
        {key: [phrase for phrase in found if phrase not in common] for key, found in phrases.items()},
    )


def _phrases(row: Row) -> list[tuple[str, str]]:
    c = row.columns
    protocol, *changed = c["protocol"].split(" ")
    settings = [("", setting) for setting in changed]
    names = [("model", c["model"]), ("method", c["method"]), ("", drawn(c["k"])), ("protocol", protocol)]
    return names + settings


def _with_name(name: str, text: str) -> str:
    return f"{name} {text}".strip()


def _kinds(settings: Sequence[Sequence[tuple[str, str]]], n: int) -> int:
    return len({tuple(phrases[:n]) for phrases in settings})
