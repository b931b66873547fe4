from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from momentum_bench.harness.optimizers.schedules import is_evaluation_step, learning_rate
from tests.helpers.specs import make_spec


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")],
)
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_the_schedules_are_those_of_transformers(schedule: str, theirs: str, warmup_steps: int):
    spec = make_spec(lr_schedule=schedule, warmup_steps=warmup_steps, max_steps=10, learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=warmup_steps, num_training_steps=10)
    for step in range(10):
        assert learning_rate(spec, step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


@given(st.integers(1, 50), st.integers(1, 60))
def test_dev_is_scored_on_schedule_and_at_the_end(max_steps: int, eval_every: int):
    spec = make_spec(max_steps=max_steps, eval_every=eval_every)
    steps = [step for step in range(1, max_steps + 1) if is_evaluation_step(spec, step)]
    assert steps == sorted({*range(eval_every, max_steps + 1, eval_every), max_steps})
