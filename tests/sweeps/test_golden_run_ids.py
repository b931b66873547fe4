"""Run ids of sweeps of many kinds, as earlier versions gave them: what is stored stays valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import design_of, plan
from momentum_bench.harness.sweeps.request import Sweep
from tests.conftest import ROOT, sentiment_rows, write_rows

GOLDEN = json.loads((ROOT / "tests" / "golden" / "run_ids.json").read_text())
"""Of each sweep: its flags, the ids of its runs in the order of the plan; of some, the id of the design."""

PAIRS = [
    {
        "premise": f"the film {i} was great",
        "hypothesis": f"it {i} was good",
        "sentence1": f"a plot {i}",
        "sentence2": f"the plot {i} again",
        "label": i % 2,
        "idx": i,
    }
    for i in range(24)
]


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that never change, for a task of one sentence and a task of two."""
    folder = tmp_path_factory.mktemp("golden")
    for part, n in (("train", 40), ("validation", 24)):
        write_rows(folder / "sst2" / f"{part}.jsonl", sentiment_rows(n))
        write_rows(folder / "rte" / f"{part}.jsonl", PAIRS[:n])
    return folder


def planned(flags: dict, data_dir: Path) -> tuple[Sweep, list[RunSpec]]:
    """The runs of a sweep; images come with a package, not from the folder."""
    images = flags.get("task") == "digits"
    sweep = make_sweep(flags if images else flags | {"data_dir": str(data_dir)}, None)
    data = [load_task_data(find_task(name), sweep.data_dir) for name in sweep.task]
    model = sweep.model if images else "hub:some/model"
    return sweep, plan(sweep, data, model, "0123456789abcdef")


@pytest.mark.parametrize("name", GOLDEN)
def test_run_ids_stay(name: str, made_data: Path):
    sweep, specs = planned(GOLDEN[name]["flags"], made_data)
    assert [spec.run_id for spec in specs] == GOLDEN[name]["run_ids"]
    if "design_id" in GOLDEN[name]:
        design = design_of(sweep, specs)
        assert design is not None
        assert design.design_id == GOLDEN[name]["design_id"]
