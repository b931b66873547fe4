"""The boards that are published in this repository, built again from their records."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

from momentum_bench.leaderboards.archive import store_of
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.rows import Row, by_table
from tests.conftest import ROOT

PUBLISHED = ROOT / "leaderboards" / "published"


@lru_cache
def published_board(name: str) -> Leaderboard:
    return build(store_of(PUBLISHED / name))


def pairs_of(board: Leaderboard) -> list[tuple[Row, Row]]:
    """All pairs of rows that stand in one table."""
    return [pair for table in by_table(board.rows) for pair in combinations(table, 2)]
