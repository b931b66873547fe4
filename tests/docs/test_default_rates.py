"""docs/default-rates.md against the sweep from which it is made, and the sweep against the registry."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from momentum_bench.harness.optimizers.registry import FROM_LIBRARIES, OPTIMIZERS
from momentum_bench.harness.records.selection import DevResult, by_choice
from tests.conftest import ROOT
from tests.helpers.manual import script
from tests.helpers.specs import make_record
from tests.helpers.synthetic import fill


@pytest.fixture
def default_rates() -> ModuleType:
    return script("default_rates")


def test_the_page_is_what_the_script_writes(default_rates: ModuleType):
    text = (ROOT / "docs" / "default-rates.md").read_text(encoding="utf-8")
    assert text == default_rates.page(), "run python docs/default_rates.py"


@pytest.mark.parametrize("name", [*OPTIMIZERS, *FROM_LIBRARIES])
def test_every_default_rate_was_tried_and_the_best_is_inside(default_rates: ModuleType, name: str):
    if name in FROM_LIBRARIES:
        pytest.importorskip(FROM_LIBRARIES[name].partition(".")[0])
    found = default_rates.trials()[name]
    tried = [trial.learning_rate for trial in found]
    assert tried == sorted(set(tried))
    assert set(default_rates.defaults(name)) <= set(tried)
    best = min(found, key=by_choice)
    assert best.learning_rate in default_rates.defaults(name)
    assert default_rates.is_inside(found)


def test_a_best_rate_at_an_end_is_not_inside(default_rates: ModuleType):
    accuracies = (0.5, 0.9, 0.9)
    found = [DevResult("", 0.1 * (i + 1), a, 1.0) for i, a in enumerate(accuracies)]
    assert default_rates.is_inside(found)
    assert not default_rates.is_inside(found[:2])
    assert not default_rates.is_inside(found[1:])


def test_what_is_read_from_records(
    default_rates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = ("sgdm", "pytorch_optimizer.Lion@4.1.0")
    records = [make_record(0.75, loss=0.5, optimizer=name, learning_rate=0.3) for name in names]
    fill(tmp_path, records)
    monkeypatch.setattr(default_rates, "FOUND", tmp_path / "found.csv")
    default_rates.write(tmp_path)
    assert (tmp_path / "found.csv").read_text().splitlines() == [
        "run_id,optimizer,learning_rate,dev_metric,dev_loss",
        f"{records[1].spec.run_id},lion,0.3,0.75,0.5",
        f"{records[0].spec.run_id},sgdm,0.3,0.75,0.5",
    ]
