"""The settings of a leaderboard's rows in words: those that all rows share, and those that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from momentum_bench.harness.records.schema import drawn
from momentum_bench.leaderboards.rows import Row, model_names


@dataclass(frozen=True)
class Context:
    """Phrases about rows: model, method, k, and each setting that differs from the protocol's.

    Attributes:
        shared: the phrases that are true of all rows.
        own: the other phrases of each setting (by `Row.setting_key`), as pairs of a name and a phrase.
    """

    shared: list[str]
    own: dict[str, list[tuple[str, str]]]

    def of(self, row: Row) -> list[str]:
        """The phrases of a row that are not true of all rows."""
        return [_with_name(*phrase) for phrase in self.own[row.setting_key]]

    def short(self, row: Row) -> list[str]:
        """The first of these phrases, as few as are needed to tell the settings apart."""
        settings = list(self.own.values())
        longest = max(map(len, settings))
        n = next(n for n in range(longest + 1) if _kinds(settings, n) == _kinds(settings, longest))
        return [text for _, text in self.own[row.setting_key][:n]]


def context(rows: Sequence[Row]) -> Context:
    """The phrases about rows. Without rows nothing is shared."""
    models = model_names(rows)
    phrases = {row.setting_key: _phrases(row, models[row.model_key]) for row in rows}
    common = set.intersection(*map(set, phrases.values())) if phrases else set()
    first = next(iter(phrases.values()), [])
    return Context(
        [_with_name(*phrase) for phrase in first if phrase in common],
        {key: [phrase for phrase in found if phrase not in common] for key, found in phrases.items()},
    )


def _phrases(row: Row, model: str) -> list[tuple[str, str]]:
    c = row.columns
    protocol, *changed = c["protocol"].split(" ")
    settings = [("", setting) for setting in changed]
    names = [("model", model), ("method", c["method"]), ("", drawn(c["k"])), ("protocol", protocol)]
    return names + settings


def _with_name(name: str, text: str) -> str:
    return f"{name} {text}".strip()


def _kinds(settings: Sequence[Sequence[tuple[str, str]]], n: int) -> int:
    return len({tuple(phrases[:n]) for phrases in settings})
