"""docs/what-fits.md against the count from which it is made."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.helpers.manual import script


@pytest.mark.slow
def test_the_first_line_of_the_table_is_what_is_counted():
    what_fits = script("what_fits")
    shape = what_fits.SHAPES[0]
    counted = what_fits.counted(shape, "head", "fp32")
    line = f"| {shape.name}, head | fp32 | {' | '.join(map(what_fits.cell, counted.values()))} |"
    assert line in (ROOT / "docs" / "what-fits.md").read_text()


def test_a_cell_names_the_smallest_card():
    what_fits = script("what_fits")
    assert what_fits.cell(10 * 10**9) == "13.1 (**16**)"
    assert what_fits.cell(13 * 10**9) == "16.7 (**24**)"
    assert what_fits.cell(80 * 10**9) == "97.1"
