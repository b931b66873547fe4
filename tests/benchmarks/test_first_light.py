"""What is run first on a new GPU: its CPU half, and what it finds wrong."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, cli_environment


@pytest.fixture(scope="module")
def records():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield pytest.importorskip("first_light_records")
    sys.path.remove(str(ROOT / "benchmarks"))


def part(device: str, **changes: Any) -> dict[str, Any]:
    run = {"optimizer": "sgd", "status": "done", "device": device, "autocast": None, "is_packed": True}
    return {"exit_code": 0, "runs": [run | {"losses": [0.5, 0.4], "hash": "a"} | changes]}


GOOD = {
    "cpu": part("cpu"),
    "gpu": part("cuda", losses=[0.5002, 0.4]),
    "bf16": part("cuda", losses=[0.505, 0.4], autocast="bfloat16"),
    "host-memory": part("cuda", parameters_in="cpu"),
    "deterministic": part("cuda"),
    "deterministic-workers": part("cuda"),
    "digits": part("cuda", is_packed=False, hash="b"),
    "digits-without-tf32": part("cuda", is_packed=False, hash="b"),
}


def test_what_is_as_it_must_be(records):
    assert records.problems(GOOD) == []
    assert records.problems({"cpu": GOOD["cpu"]}) == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpu", {"losses": [0.502, 0.4]}, "gpu: losses of sgd are 2.0e-03 from the CPU's"),
        ("gpu", {"device": "cpu"}, "gpu: sgd is done on cpu"),
        ("gpu", {"status": "failed"}, "gpu: sgd is failed on cuda"),
        ("gpu", {"is_packed": False}, "gpu: the batches are padded"),
        ("bf16", {"autocast": None}, "bf16: autocast is None"),
        ("host-memory", {"parameters_in": "cuda"}, "host-memory: the parameters are in the memory of cuda"),
        ("deterministic-workers", {"hash": "c"}, "deterministic and deterministic-workers have other"),
        ("digits-without-tf32", {"hash": "c"}, "digits and digits-without-tf32 have other parameters"),
    ],
)
def test_what_is_wrong_is_found(records, name: str, changes: dict[str, Any], message: str):
    parts = copy.deepcopy(GOOD)
    parts[name]["runs"][0] |= changes
    [found] = records.problems(parts)
    assert message in found


def test_a_part_without_records_is_wrong(records):
    parts = GOOD | {"gpu": {"exit_code": 2, "runs": []}}
    assert records.problems(parts) == ["gpu: exit code 2 and 0 record(s)"]


def test_data_and_model_must_be_given():
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "first_light.sh")],
        env=cli_environment() | {"DATA": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "DATA is not set: give the folder" in done.stderr


def test_a_python_without_torch_is_not_taken_for_a_machine_without_a_gpu(tmp_path: Path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    environment = cli_environment(DATA="data", MODEL="model")
    environment["PATH"] = os.pathsep.join([str(tmp_path), environment["PATH"]])
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "first_light.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{fake} lacks what runs need" in done.stderr
    assert "no GPU" not in done.stdout


def test_what_was_seen_is_written_after_each_part(records, tmp_path: Path):
    seen, output = tmp_path / "seen.jsonl", tmp_path / "output.json"
    for count, name in enumerate(("cpu", "gpu"), start=1):
        records.add(name, "1", str(tmp_path / name), str(seen), str(output))
        written = json.loads(output.read_text())
        assert [p["part"] for p in written["parts"]] == ["cpu", "gpu"][:count]
        assert len(written["problems"]) == count


@pytest.mark.slow
def test_the_cpu_half_passes(toy_data: Path, tiny_model: Path, tmp_path: Path):
    environment = cli_environment(DATA=str(toy_data), MODEL=str(tiny_model), STEPS="2", EVERY="1")
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "first_light.sh"), str(tmp_path / "seen.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert [p["part"] for p in seen["parts"]] == ["cpu"]
    assert [run["status"] for run in seen["parts"][0]["runs"]] == ["done", "done"]
