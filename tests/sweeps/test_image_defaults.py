"""Image classification from scratch, through the same plan, loop, records and leaderboard as all else."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.data.images import load_image_data
from momentum_bench.harness.data.splits import held_out_split, shuffled_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.files import network_source
from momentum_bench.harness.models.networks import build_network, draw_network, load_network
from momentum_bench.harness.optimizers.schedules import learning_rate
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.sweeps.image_defaults import settings
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.suites import expand_suites
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import score
from momentum_bench.harness.training.session import Session
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.tasks import get_task

DIGITS = get_task("digits")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planned(**flags) -> list[RunSpec]:
    sweep = make_sweep(
        {"task": "digits", "k": 5, "max_steps": 6, "eval_every": 3, "seeds": "13"} | flags, None
    )
    source = network_source(DIGITS)
    return plan(sweep, [load_image_data(DIGITS, None)], source.name, source.revision)


def run(spec: RunSpec, session: Session, tmp_path: Path) -> RunRecord:
    return finetune(spec, session, Journal(tmp_path / spec.run_id / "evaluations.jsonl"))


@pytest.fixture
def session() -> Session:
    return Session(Inputs("task:digits", None), make_accelerator("fp32"))


class TestDefaults:
    def test_epochs_become_steps(self):
        found = settings(DIGITS, {})
        n = DIGITS.n_train - round(DIGITS.n_train * DIGITS.dev_fraction)
        assert found["max_steps"] == round(10 * n / 32)
        assert found["decay_steps"] == (round(found["max_steps"] * 0.5), round(found["max_steps"] * 0.8))
        assert (found["k"], found["lr_schedule"], found["max_grad_norm"]) == (0, "step", None)

    def test_a_batch_keeps_the_epochs_and_a_number_of_steps_the_proportions(self):
        assert settings(DIGITS, {"batch_size": 64})["max_steps"] == round(10 * 1212 / 64)
        assert settings(DIGITS, {"max_steps": 1000})["decay_steps"] == (500, 800)
        assert settings(DIGITS, {"max_steps": 1000})["eval_every"] == 100
        assert settings(DIGITS, {"lr_schedule": "cosine"})["decay_steps"] is None

    def test_the_schedules_of_the_paper(self):
        cifar10, imagenet = get_task("cifar10"), get_task("imagenet")
        assert (cifar10.batch_size, cifar10.epochs, cifar10.decay_epochs) == (512, 160, (80, 120))
        assert (imagenet.epochs, imagenet.warmup_epochs, imagenet.decay_epochs) == (90, 5, (30, 60, 80))
        steps = settings(imagenet, {"batch_size": 8192})
        assert steps["warmup_steps"] == pytest.approx(steps["max_steps"] * 5 / 90, abs=1)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"task": "digits,sst2"}, "digits has its own network"),
            ({"task": "sst2", "protocol": "from-scratch"}, "--protocol from-scratch is for image tasks"),
            ({"batch_size": "many"}, "--batch-size: expected a whole number, found 'many'"),
            ({"method": "head"}, "--method head does not go with --task digits.*Leave out --method"),
            ({"model": "roberta-large"}, "--model roberta-large does not go with --task digits"),
            ({"peft": "lora"}, "--peft lora does not go with --method scratch: it is for pre-trained models"),
            ({"dropout": 0.1}, "--dropout 0.1 does not go with --method scratch"),
            ({"decay_steps": "5,4"}, "--decay-steps 5,4 must ascend"),
            ({"decay_steps": "900"}, "must ascend between"),
            (
                {"lr_schedule": "linear", "decay_steps": "3"},
                "--decay-steps 3 does not go with --lr-schedule linear",
            ),
        ],
    )
    def test_what_does_not_fit_is_explained(self, flags: dict, message: str):
        with pytest.raises(UserError, match=message):
            expand_suites(make_sweep({"task": "digits"} | flags, None))


@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=60),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_held_out_split_has_every_row_once_and_its_share_of_each_class(labels, share, seed):
    labels = [*labels, 0, 0, 1, 1, 2, 2, 3, 3]
    split = held_out_split(labels, share, shuffled_rows(len(labels), seed))
    assert sorted(split.train + split.dev) == list(range(len(labels)))
    for label in range(4):
        n, n_dev = labels.count(label), sum(labels[row] == label for row in split.dev)
        assert n_dev == max(1, round(share * n))


def test_a_class_of_one_row_cannot_be_held_out_from():
    with pytest.raises(UserError, match="class 1 has one training row"):
        held_out_split([0, 0, 1], 0.5, [0, 1, 2])


def test_the_rate_falls_to_a_tenth_after_each_decay():
    [spec] = planned(optimizers="sgd", learning_rates="1", max_steps=10, decay_steps="4,7", warmup_steps=2)
    rates = [learning_rate(spec, step) for step in range(10)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_a_small_stem_keeps_height_and_width():
    for name, size in (("digits", 8), ("cifar10", 32)):
        task = get_task(name)
        model = build_network(task)
        images = torch.zeros(2, task.channels, size, size)
        assert model.resnet.embedder(images).shape[2:] == (size, size)
        assert model(pixel_values=images).logits.shape == (2, 10)


def test_weights_follow_the_seed_and_nothing_before_it():
    loaded = load_network(DIGITS)
    draw_network(loaded.model, DIGITS, 7)
    first = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    loaded.model.train()
    loaded.model(pixel_values=torch.randn(4, 1, 8, 8))  # moves the running statistics
    state = torch.random.get_rng_state()
    draw_network(loaded.model, DIGITS, 7)
    assert torch.equal(state, torch.random.get_rng_state())
    again = loaded.model.state_dict()
    assert all(torch.equal(first[name], value) for name, value in again.items())
    draw_network(loaded.model, DIGITS, 8)
    convolution = "resnet.embedder.embedder.convolution.weight"
    assert not torch.equal(first[convolution], loaded.model.state_dict()[convolution])


def test_a_run_is_the_same_alone_and_after_another(session: Session, tmp_path: Path):
    sgd, sgdm = planned(optimizers="sgd,sgdm", learning_rates="0.3")
    run(sgd, session, tmp_path)
    after = run(sgdm, session, tmp_path)
    alone = run(sgdm, Session(Inputs("task:digits", None), make_accelerator("fp32")), tmp_path / "alone")
    assert after.parameters_hash == alone.parameters_hash
    assert after.evaluations == alone.evaluations
    assert after.test == alone.test
    assert after.read_back is not None
    assert after.read_back.layout["inputs"] == "images"
    assert after.read_back.state_tensors == ("momentum_buffer",)


def test_the_best_checkpoint_has_its_running_statistics(session: Session, tmp_path: Path):
    """Test is scored by the network as dev saw it at the best step, batch norms included."""
    [spec] = planned(optimizers="sgd", learning_rates="0.3", max_steps=12, eval_every=2)
    record = run(spec, session, tmp_path)
    assert record.best is not None
    assert record.best.step < 12 or record.evaluations[-1] == record.best
    objective, dev = session.objective(spec), session.split(spec).dev
    again = score(session.loaded(spec), dev, objective, "accuracy", 0, session.accelerator)
    assert again.loss == pytest.approx(record.best.dev_loss, abs=1e-6)


def test_a_sweep_over_digits_ends_in_a_leaderboard(command_here, tmp_path: Path):
    words = ["--task", "digits", "--seeds", "13,21", "--learning-rates", "0.1,1", "--max-steps", "20"]
    done = command_here("run", *words, "--output-dir", tmp_path / "out", "--runs-at-a-time", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "leaderboard.csv").read_text().count("\ndigits,") == 2
    record = json.loads(next((tmp_path / "out" / "runs").glob("*/record.json")).read_text())
    assert record["spec"]["method"] == "scratch"
    assert departures(tmp_path / "out") == []
