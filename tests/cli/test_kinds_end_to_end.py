"""Every kind of task by every method that fits it, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momentum_bench.harness.cli.main import main
from momentum_bench.harness.records.files import checksum
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.checking.check import departures
from tests.conftest import write_rows


def rows_of(kind: str, n: int) -> list[dict]:
    """n rows whose answer a word of theirs gives away."""
    good, bad = ("great", "good", "fun"), ("terrible", "bad", "dull")
    if kind == "stsb":
        return [
            {"sentence1": f"a film {i}", "sentence2": f"{good[i % 3]} plot", "label": i % 11 / 2}
            for i in range(n)
        ]
    if kind == "copa":
        return [
            {
                "premise": f"The film {i} was {(good, bad)[i % 2][i % 3]}.",
                "question": ("cause", "effect")[i % 2],
                "choice1": "It was a fun plot.",
                "choice2": "The plot",
                "label": i // 2 % 2,
            }
            for i in range(n)
        ]
    if kind == "multirc":
        return [
            {
                "paragraph": f"film {i // 4} was {good[i // 4 % 3]}. " * 2,
                "question": f"was {('it', 'the plot')[i // 2 % 2]} good?",
                "answer": ("it was", "bad")[i % 2],
                "label": i % 2,
            }
            for i in range(n)
        ]
    return [
        {
            "passage": f"the film {i} and the plot",
            "query": "@placeholder was fun",
            "entities": ["the film", "plot", "it"][: 2 + i % 2],
            "answers": [("the film", "plot")[i % 2], "Film"],
        }
        for i in range(n)
    ]


@pytest.fixture
def kinds_data(tmp_path: Path) -> Path:
    for name, n in (("stsb", 24), ("copa", 16), ("multirc", 32), ("record", 10)):
        rows = rows_of(name, 2 * n)
        write_rows(tmp_path / "data" / name / "train.jsonl", rows[:n])
        write_rows(tmp_path / "data" / name / "validation.jsonl", rows[n:])
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("method", "model", "names"),
    [
        ("prompt", "splade_tiny", "stsb,multirc"),
        ("head", "tiny_model", "stsb,copa,multirc,record"),
        ("causal", "tiny_decoder", "stsb,copa,multirc,record"),
    ],
)
def test_every_kind_runs_and_its_leaderboard_checks(
    method: str,
    model: str,
    names: str,
    kinds_data: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    words = ["--task", names, "--method", method, "--model", request.getfixturevalue(model)]
    words += ["--data-dir", kinds_data, "--k", 2, "--seeds", 13, "--learning-rates", 0.01]
    words += ["--max-steps", 1, "--eval-every", 1, "--batch-size", 2, "--runs-at-a-time", 1]
    words += ["--optimizers", "sgdm", "--test-limit", 8]
    folder = tmp_path / "results"
    words += ["--gradient-accumulation-steps", 2, "--output-dir", folder]
    with pytest.raises(SystemExit) as stopped:  # in this process: a start costs more than the runs
        main(["run", *map(str, words)])
    assert stopped.value.code == 0
    assert departures(folder) == []
    records = list(Store(folder).records())
    assert sorted(record.spec.task for record in records) == sorted(names.split(","))
    for record in records:
        assert record.status == "done"
        assert record.test is not None
        kind = {"stsb": float, "record": str}.get(record.spec.task, int)
        assert {type(value) for value in record.test.predictions} == {kind}
        assert (record.test.questions is not None) == (record.spec.task == "multirc")
    forged = next(record for record in records if record.spec.task == names.split(",")[-1])
    forge(folder, forged)
    found = departures(folder)
    assert any(forged.spec.run_id in line and "labels and predictions give" in line for line in found)


def forge(folder: Path, record: RunRecord) -> None:
    """Give a record other further scores than its predictions have, and a checksum that fits."""
    path = folder / "runs" / record.spec.run_id / "record.json"
    fields = json.loads(path.read_text())
    del fields["checksum"]
    fields["test"]["further"] = dict.fromkeys(fields["test"]["further"], 0.123)
    path.write_text(json.dumps(fields | {"checksum": checksum(fields)}) + "\n")
