"""The boards that are published in this repository, built again from their records."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import matplotlib

from momentum_bench.leaderboards.archive import ARCHIVE, store_of
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.rows import Row, by_table
from tests.conftest import ROOT

PUBLISHED = ROOT / "leaderboards" / "published"
BOARDS = sorted(path.parent.name for path in PUBLISHED.glob(f"*/{ARCHIVE}"))


def draws_as_published() -> bool:
    """Whether plots are drawn by the version of matplotlib that drew the published ones; others differ."""
    return f"matplotlib=={matplotlib.__version__}\n" in (ROOT / "constraints.txt").read_text()


@lru_cache
def published_board(name: str) -> Leaderboard:
    return build(store_of(PUBLISHED / name))


def pairs_of(board: Leaderboard) -> list[tuple[Row, Row]]:
    """The pairs of SGD and SGDM, each tuned on each seed."""
    tuned = [row for row in board.rows if row.role == "tuned" and row.label in ("sgd", "sgdm")]
    return [pair for table in by_table(tuned) for pair in combinations(table, 2)]
