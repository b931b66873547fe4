"""A study whose cells gave no row writes tables that have a header."""

from __future__ import annotations

import pytest

from momentum_bench.harness.reporting import csv_text
from momentum_bench.harness.studies.batch_size import batch_size_tables
from momentum_bench.harness.studies.closeness import closeness_tables
from momentum_bench.harness.studies.noise import noise_tables
from momentum_bench.harness.studies.svag import svag_tables


@pytest.mark.parametrize("tables", [batch_size_tables, closeness_tables, noise_tables, svag_tables])
def test_tables_without_records_have_their_columns(tables):
    for table in tables([]).values():
        assert len(set(table.columns)) == len(table.columns) >= 7
        header = csv_text(table.rows, table.columns).splitlines()[0]
        assert header.split(",") == list(table.columns)
