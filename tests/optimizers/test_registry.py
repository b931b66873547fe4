"""The optimizers against worked traces, against each other, and against what their entries promise."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers import live, published
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.optimizers.live import WrongOptimizerError, check_live, state_tensors
from momentum_bench.harness.optimizers.published import (
    QHM,
    SGDF,
    SNGM,
    AveragedSGDM,
    RandomScaling,
    SignSGD,
    Signum,
)
from momentum_bench.harness.optimizers.registry import OPTIMIZERS, TWINS
from momentum_bench.harness.optimizers.schedules import averaged_schedule
from momentum_bench.harness.seeds import exponential_scale

Build = Callable[[list[dict]], torch.optim.Optimizer]

START = (0.3, -0.7)
GRADIENTS = ((1.0, -2.0), (0.5, 0.25), (-1.0, 3.0), (0.2, -0.1))
HEAVY_BALL = [(0.29, -0.68), (0.276, -0.6645), (0.2734, -0.68055), (0.26906, -0.693995)]
SCALES = (0.5, 2.0, 1.0, 0.1)

GOLDEN: dict[str, tuple[Build, list[tuple[float, float]]]] = {
    "heavy ball": (lambda g: torch.optim.SGD(g, lr=0.01, momentum=0.9), HEAVY_BALL),
    "averaging form": (lambda g: AveragedSGDM(g, lr=0.1, momentum=0.9), HEAVY_BALL),
    "qhm, nu 1": (lambda g: QHM(g, lr=0.1, momentum=0.9, nu=1), HEAVY_BALL),
    "sngm": (
        lambda g: SNGM(g, lr=0.1, momentum=0.9),
        [
            (0.2552786405, -0.6105572809),
            (0.1255866978, -0.5747801933),
            (0.04048672593, -0.6374491442),
            (-0.1255459678, -0.6491298405),
        ],
    ),
    "sgdf": (
        lambda g: SGDF(g, lr=0.5),
        [
            (-0.2, 0.3),
            (-0.5528374573, 0.6938301397),
            (-0.5934358183, 0.3784354157),
            (-0.6836581138, 0.2476952759),
        ],
    ),
    "sgdf, exponent 1/2": (
        lambda g: SGDF(g, lr=0.5, exponent=0.5),
        [
            (-0.2, 0.3),
            (-0.5254626604, 0.6213213617),
            (-0.5098744808, 0.1728877439),
            (-0.6046100578, 0.1034721763),
        ],
    ),
    "random scaling": (
        lambda g: RandomScaling(g, lr=0.01, momentum=0.9, seed=0),
        [(0.2955, -0.691), (0.2703, -0.6631), (0.26796, -0.677545), (0.2675694, -0.67875505)],
    ),
    "signsgd": (
        lambda g: SignSGD(g, lr=0.1),
        [(0.2, -0.6), (0.1, -0.7), (0.2, -0.8), (0.1, -0.7)],
    ),
}


def iterates(
    build: Build, start: Sequence[torch.Tensor], gradients: Sequence[Sequence[torch.Tensor]]
) -> list[list[torch.Tensor]]:
    """The parameters after each step; every parameter is a group of its own."""
    parameters = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = build([{"params": [p]} for p in parameters])
    return [feed(optimizer, parameters, step) for step in gradients]


def feed(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


@pytest.fixture
def fixed_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "exponential_scale", lambda seed, step: SCALES[step - 1])


@pytest.mark.parametrize("in_two", [False, True], ids=["one tensor", "two groups"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_trace(name: str, in_two: bool, fixed_scales: None) -> None:
    build, expected = GOLDEN[name]
    split = (lambda xs: [[x] for x in xs]) if in_two else (lambda xs: [xs])

    def tensors(values: Sequence[float]) -> list[torch.Tensor]:
        return [torch.tensor(part, dtype=torch.float64) for part in split(values)]

    for found, wanted in zip(
        iterates(build, tensors(START), [tensors(g) for g in GRADIENTS]), expected, strict=True
    ):
        # the trace of exponent 1/2 is of code that adds eps = 1e-8 before the bias correction of s
        tolerance = 1e-7 if name == "sgdf, exponent 1/2" else 1e-9
        assert torch.cat(found).tolist() == pytest.approx(wanted, abs=tolerance)


def test_torch_dampening_is_not_the_averaging_form() -> None:
    start, gradients = [torch.tensor(START)], [[torch.tensor(g)] for g in GRADIENTS]
    damped = iterates(lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, dampening=0.9), start, gradients)
    # the first step is ten times too long, and the buffer keeps that for as long as it remembers
    expected = [(0.2, -0.5), (0.105, -0.3225), (0.0295, -0.19275), (-0.04045, -0.074975)]
    for [found], wanted in zip(damped, expected, strict=True):
        assert found.tolist() == pytest.approx(wanted, abs=1e-6)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """Parameters of random shapes and one dtype, and random gradients for a few steps."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    def some() -> list[torch.Tensor]:
        return [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]

    return some(), [some() for _ in range(draw(st.integers(1, 7)))]


betas = st.floats(0, 0.99)
rates = st.floats(1e-3, 1)
few = settings(max_examples=40, deadline=None)


def assert_close(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> None:
    for left, right in zip(a, b, strict=True):
        for x, y in zip(left, right, strict=True):
            tolerance = 1e-11 if x.dtype == torch.float64 else 3e-5
            torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def assert_bitwise(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> None:
    for left, right in zip(a, b, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


@given(problems(), betas, rates, st.floats(0, 0.1))
@few
def test_averaging_form_at_eta_is_heavy_ball_at_eta_times_one_minus_beta(problem, beta, eta, decay) -> None:
    heavy_ball = iterates(
        lambda g: torch.optim.SGD(g, lr=eta * (1 - beta), momentum=beta, weight_decay=decay), *problem
    )
    averaging = iterates(lambda g: AveragedSGDM(g, lr=eta, momentum=beta, weight_decay=decay), *problem)
    assert_close(averaging, heavy_ball)


@given(problems(), betas, rates)
@few
def test_a_step_in_one_pass_is_that_of_torch_in_several(problem, beta, eta) -> None:
    several = {"fused": False, "foreach": False}
    constants = {"beta1": beta, "beta2": 0.999, "eps": 1e-8}
    for name, h, reference in (
        ("sgdm", {"momentum": beta}, lambda g: torch.optim.SGD(g, lr=eta, momentum=beta, **several)),
        ("adamw", constants, lambda g: torch.optim.AdamW(g, lr=eta, betas=(beta, 0.999), **several)),
    ):
        build = partial(OPTIMIZERS[name].build, rate=eta, hyperparameters=h, seed=0)
        assert all(group["fused"] for group in build([{"params": [torch.zeros(1)]}]).param_groups)
        assert_close(iterates(build, *problem), iterates(reference, *problem))


@given(problems(), rates)
@few
def test_without_momentum_all_are_sgd_bitwise(problem, eta) -> None:
    sgd = iterates(lambda g: torch.optim.SGD(g, lr=eta), *problem)
    for name in ("sgdm", "sgdm_ema", "nesterov", "sgd_matched"):
        entry = OPTIMIZERS[name]
        h = entry.all_hyperparameters(momentum=0.0)
        assert entry.schedule([eta], h) == [eta]
        found = iterates(
            lambda g, entry=entry, h=h: entry.build(g, eta * entry.torch_rate(h), h, 0), *problem
        )
        assert_bitwise(found, sgd)


@given(problems(), betas, rates)
@few
def test_limits_of_qhm(problem, beta, eta) -> None:
    sgd = iterates(lambda g: torch.optim.SGD(g, lr=eta), *problem)
    averaging = iterates(lambda g: AveragedSGDM(g, lr=eta, momentum=beta), *problem)
    assert_bitwise(iterates(lambda g: QHM(g, lr=eta, momentum=beta, nu=0), *problem), sgd)
    assert_bitwise(iterates(lambda g: QHM(g, lr=eta, momentum=beta, nu=1), *problem), averaging)
    # with nothing remembered the two parts of the step are one gradient's, rounded apart
    assert_close(iterates(lambda g: QHM(g, lr=eta, momentum=0, nu=0.7), *problem), sgd)


@given(problems(), st.floats(0.1, 0.99), rates, st.floats(0, 10))
@few
def test_random_scaling_with_s_1_is_heavy_ball(problem, beta, eta, mu) -> None:
    b = beta / (1 + eta * mu)
    heavy_ball = iterates(lambda g: torch.optim.SGD(g, lr=eta * b, momentum=b), *problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "exponential_scale", lambda seed, step: 1.0)
        assert_close(
            iterates(lambda g: RandomScaling(g, lr=eta, momentum=beta, mu=mu, seed=0), *problem), heavy_ball
        )


@given(problems(), st.floats(0.01, 0.99), rates)
@few
def test_nesterov(problem, beta, eta) -> None:
    """x <- x - gamma (g + beta m), in plain tensor lines."""
    entry = OPTIMIZERS["nesterov"]
    h = {"momentum": beta}
    found = iterates(lambda g: entry.build(g, eta * entry.torch_rate(h), h, 0), *problem)
    start, gradients = problem
    x, m = list(start), [torch.zeros_like(p) for p in start]
    expected = []
    for step in gradients:
        m = [beta * mi + g for mi, g in zip(m, step, strict=True)]
        x = [xi - eta * (1 - beta) * (g + beta * mi) for xi, g, mi in zip(x, step, m, strict=True)]
        expected.append(x)
    assert_close(found, expected)


@given(problems(), st.lists(betas, min_size=7, max_size=7), rates)
@few
def test_averaging_form_follows_a_beta_that_varies(problem, varying, eta) -> None:
    start, gradients = problem
    parameters = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = AveragedSGDM(parameters, lr=eta, momentum=0.5)
    x, m = list(start), [torch.zeros_like(p) for p in start]
    for beta, step in zip(varying, gradients, strict=False):
        optimizer.param_groups[0]["momentum"] = beta
        found = feed(optimizer, parameters, step)
        m = [beta * mi + (1 - beta) * g for mi, g in zip(m, step, strict=True)]
        x = [xi - eta * mi for xi, mi in zip(x, m, strict=True)]
        assert_close([found], [x])


@given(problems(), betas, st.lists(rates, min_size=7, max_size=7))
@few
def test_matched_sgd_ends_where_sgdm_ends_on_given_gradients(problem, beta, schedule) -> None:
    start, gradients = problem
    schedule = schedule[: len(gradients)]

    def run_schedule(optimizer: torch.optim.Optimizer, parameters, run_rates) -> list[torch.Tensor]:
        for rate, step in zip(run_rates, gradients, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            last = feed(optimizer, parameters, step)
        return last

    ends = []
    for name in ("sgdm_ema", "sgd_matched"):
        entry, h = OPTIMIZERS[name], {"momentum": beta}
        parameters = [torch.nn.Parameter(value.clone()) for value in start]
        optimizer = entry.build([{"params": parameters}], 1.0, h, 0)
        ends.append(run_schedule(optimizer, parameters, entry.schedule(schedule, h)))
    assert_close([ends[0]], [ends[1]])


@pytest.mark.parametrize(
    ("etas", "beta", "expected"),
    [
        (
            [1.0] * 10,
            0.9,
            [0.651322, 0.61258, 0.569533, 0.521703, 0.468559, 0.40951, 0.3439, 0.271, 0.19, 0.1],
        ),
        (
            [1 - 0.1 * s for s in range(10)],
            0.5,
            [0.900098, 0.800195, 0.700391, 0.600781, 0.501562, 0.403125, 0.30625, 0.2125, 0.125, 0.05],
        ),
    ],
)
def test_worked_values_of_the_averaged_schedule(etas, beta, expected) -> None:
    assert averaged_schedule(etas, beta) == pytest.approx(expected, abs=5e-7)


@given(st.lists(rates, max_size=12), betas)
def test_averaged_schedule_is_the_sum_that_defines_it(etas, beta) -> None:
    expected = [
        math.fsum(etas[s] * (1 - beta) * beta ** (s - k) for s in range(k, len(etas)))
        for k in range(len(etas))
    ]
    assert averaged_schedule(etas, beta) == pytest.approx(expected)


@given(problems(), st.floats(1e-6, 1e6), betas, rates)
@few
def test_sngm_ignores_the_size_of_gradients_and_bounds_the_step(problem, size, beta, eta) -> None:
    start, gradients = problem
    found = iterates(lambda g: SNGM(g, lr=eta, momentum=beta), start, gradients)
    larger = [[size * g for g in step] for step in gradients]
    assert_close(iterates(lambda g: SNGM(g, lr=eta, momentum=beta), start, larger), found)
    for before, after in zip([start, *found], found, strict=False):
        moved = math.sqrt(sum(float((b - a).square().sum()) for a, b in zip(before, after, strict=True)))
        assert moved <= eta / (1 - beta) * 1.001


def test_sngm_stands_still_on_zero_gradients() -> None:
    start = [torch.ones(3), torch.ones(2)]
    zeros = [[torch.zeros(3), torch.zeros(2)]] * 3
    assert_bitwise(iterates(lambda g: SNGM(g, lr=1.0, momentum=0.9), start, zeros), [start] * 3)


def test_signsgd_decay_is_decoupled() -> None:
    [[x]] = iterates(
        lambda g: SignSGD(g, lr=0.1, weight_decay=0.5),
        [torch.tensor([2.0, -2.0])],
        [[torch.tensor([1e-3, 0.0])]],
    )
    assert x.tolist() == pytest.approx([2 * 0.95 - 0.1, -2 * 0.95])


@pytest.mark.parametrize(
    "build",
    [
        lambda g, decay: QHM(g, lr=0.1, momentum=0.9, nu=0.7, weight_decay=decay),
        lambda g, decay: SNGM(g, lr=0.1, momentum=0.9, weight_decay=decay),
        lambda g, decay: RandomScaling(g, lr=0.1, momentum=0.9, seed=1, weight_decay=decay),
        lambda g, decay: SGDF(g, lr=0.1, weight_decay=decay),
    ],
)
def test_coupled_decay_is_a_gradient(build) -> None:
    decay, start = 0.3, [torch.tensor([2.0, -1.0], dtype=torch.float64)]
    gradients = [[torch.tensor(g, dtype=torch.float64)] for g in GRADIENTS]
    found = iterates(lambda g: build(g, decay), start, gradients)
    shifted, x = [], start[0]
    for [g], [after] in zip(gradients, found, strict=True):
        shifted.append([g + decay * x])
        x = after
    assert_close(iterates(lambda g: build(g, 0.0), start, shifted), found)


def test_random_scale_is_a_pure_function_with_mean_and_variance_one() -> None:
    draws = torch.tensor([exponential_scale(13, step) for step in range(4000)], dtype=torch.float64)
    assert exponential_scale(13, 7) == draws[7] != exponential_scale(21, 7)
    assert float(draws.mean()) == pytest.approx(1, abs=0.05)
    assert float(draws.var()) == pytest.approx(1, abs=0.15)
    assert float(draws.min()) > 0


def test_random_scaling_draws_the_same_on_every_rank_and_apart_from_torch() -> None:
    start = [torch.zeros(2), torch.zeros(3)]
    gradients = [[torch.ones(2), torch.ones(3)]] * 5

    def build(groups: list[dict]) -> torch.optim.Optimizer:
        return RandomScaling(groups, lr=0.1, momentum=0.9, seed=42)

    torch.manual_seed(0)
    first = iterates(build, start, gradients)
    state = torch.get_rng_state()
    assert torch.equal(state, torch.manual_seed(0).get_state())  # draws nothing from torch
    assert_bitwise(first, iterates(build, start, gradients))
    for a, b in first:  # one scalar for all parameters
        assert float(a[0]) == float(b[0])
    other = iterates(lambda g: RandomScaling(g, lr=0.1, momentum=0.9, seed=43), start, gradients)
    assert not torch.equal(first[0][0], other[0][0])


def test_averaged_iterate_of_random_scaling() -> None:
    beta, parameter = 0.9, torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = RandomScaling([parameter], lr=0.1, momentum=beta, seed=3, average=True)
    average = torch.zeros(2, dtype=torch.float64)
    for t, gradient in enumerate(GRADIENTS, 1):
        [x] = feed(optimizer, [parameter], [torch.tensor(gradient, dtype=torch.float64)])
        average = ((beta - beta**t) * average + (1 - beta) * x) / (1 - beta**t)
        torch.testing.assert_close(optimizer.state[parameter]["averaged_iterate"], average)


def of_entry(name: str, momentum: float = 0.9) -> Build:
    entry = OPTIMIZERS[name]
    h = entry.all_hyperparameters(momentum)
    return lambda groups: entry.build(groups, 0.1 * entry.torch_rate(h), h, 13)


BUILDS: dict[str, Build] = {
    # one with a partner wants groups with roles
    name: of_entry(name)
    for name, entry in OPTIMIZERS.items()
    if not entry.by_role
} | {
    "random_scaling, averaged": lambda g: RandomScaling(g, lr=0.1, momentum=0.9, seed=1, average=True),
    "sgdf, exponent 1/2": lambda g: SGDF(g, lr=0.1, exponent=0.5),
}


@pytest.mark.parametrize("name", BUILDS)
def test_state_dict_round_trip_goes_on_bitwise(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 2, generator=random), torch.randn(4, generator=random)]
    gradients = [[torch.randn(p.shape, generator=random) for p in start] for _ in range(6)]
    whole = iterates(BUILDS[name], start, gradients)

    parameters = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = BUILDS[name]([{"params": [p]} for p in parameters])
    for step in gradients[:3]:
        feed(optimizer, parameters, step)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    resumed = BUILDS[name]([{"params": [p]} for p in fresh])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_bitwise([feed(resumed, fresh, step) for step in gradients[3:]], whole[3:])


@pytest.mark.parametrize("name", BUILDS)
def test_a_parameter_without_gradient_stays(name: str) -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = BUILDS[name]([{"params": [used]}, {"params": [unused]}])
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused.tolist() == [1, 1]
    assert used.tolist() != [1, 1]
    assert unused not in optimizer.state


def test_closure_is_evaluated_with_gradients() -> None:
    parameter = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = AveragedSGDM([parameter], lr=0.5, momentum=0.0)

    def closure() -> float:
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9
    assert parameter.tolist() == [0]


def test_complex_and_sparse_gradients_are_refused() -> None:
    for parameter in (
        torch.nn.Parameter(torch.ones(2, dtype=torch.complex64)),
        torch.nn.Parameter(torch.ones(2)),
    ):
        parameter.grad = parameter.detach().clone() if parameter.is_complex() else torch.ones(2).to_sparse()
        with pytest.raises(TypeError, match="real, dense"):
            SNGM([parameter], lr=0.1, momentum=0.9).step()


@pytest.mark.parametrize(
    "build",
    [
        lambda p: AveragedSGDM(p, lr=-1, momentum=0.9),
        lambda p: AveragedSGDM(p, lr=1, momentum=1.0),
        lambda p: QHM(p, lr=1, momentum=0.9, nu=1.1),
        lambda p: SNGM(p, lr=1, momentum=-0.1),
        lambda p: RandomScaling(p, lr=1, momentum=0.0, seed=0),
        lambda p: SGDF(p, lr=1, betas=(0.9, 1.0)),
        lambda p: SGDF(p, lr=1, exponent=0.0),
        lambda p: SignSGD(p, lr=1, weight_decay=-1),
    ],
)
def test_values_out_of_range_are_refused(build) -> None:
    with pytest.raises(ValueError, match="must be"):
        build([torch.nn.Parameter(torch.ones(1))])


# -- what the entries promise ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "momentum"),
    [(name, 0.9) for name in OPTIMIZERS]
    + [(n, 0.0) for n, entry in OPTIMIZERS.items() if entry.hyperparameters and n != "random_scaling"],
)
def test_entry_describes_the_live_optimizer(name: str, momentum: float) -> None:
    entry = OPTIMIZERS[name]
    h = entry.all_hyperparameters(momentum)
    parameters = [torch.nn.Parameter(torch.ones(5, 3)), torch.nn.Parameter(torch.ones(7))]
    named = [(str(i), p) for i, p in enumerate(parameters)]
    groups = live.weight_decay_groups(named, 0.01)
    if entry.by_role:
        model = torch.nn.Module()
        groups = live.role_groups(model, named, (), 0.01)
    optimizer = entry.build(groups, 0.1 * entry.torch_rate(h), h, 13)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert optimizer.defaults["lr"] == pytest.approx(0.1 * entry.torch_rate(h))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    check_live(name, entry, h, optimizer)
    names, n_bytes = state_tensors(optimizer)
    counters = 4 * len(parameters) * len({"step", "mu_product"} & {*names})
    n_full = sum(p.numel() for p in parameters)
    if entry.by_role:  # the matrix has one buffer, the vector two moments and a counter
        n_full, counters = n_full - parameters[0].numel() / 2, 4
    assert n_bytes - counters == entry.state_bytes_per_parameter(h) * n_full


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if not entry.own_rate])
def test_effective_rate_is_the_total_weight_of_a_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "exponential_scale", lambda seed, step: 1.0)
    entry, eta, steps = OPTIMIZERS[name], 0.25, 200
    h = entry.all_hyperparameters(momentum=0.8)
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = entry.build([{"params": [parameter]}], eta * entry.torch_rate(h), h, 0)
    for step, rate in enumerate(entry.schedule([eta] * steps, h)):
        optimizer.param_groups[0]["lr"] = rate * entry.torch_rate(h)
        parameter.grad = torch.full((1,), float(step == 0), dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(-eta, rel=1e-9)


def test_random_scaling_refuses_momentum_zero() -> None:
    with pytest.raises(UserError, match="--momentum above 0"):
        OPTIMIZERS["random_scaling"].torch_rate({"momentum": 0.0, "mu": 0.0})


def stepped(build: Build) -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = build([{"params": [parameter]}])
    feed(optimizer, [parameter], [torch.ones(2)])
    return optimizer


@pytest.mark.parametrize(
    ("name", "build", "message"),
    [
        ("sgdm", lambda g: torch.optim.SGD(g, lr=0.1), "state holds"),
        ("sgd", lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9), "state holds"),
        ("sgdm", lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.8), "momentum is 0.8"),
        ("sgdm", lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, dampening=0.9), "dampening is 0.9"),
        ("nesterov", lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9), "nesterov is False"),
        ("qhm", lambda g: QHM(g, lr=0.1, momentum=0.9, nu=1.0), "nu is 1.0"),
        ("adamw", lambda g: torch.optim.AdamW(g, lr=0.1, betas=(0.9, 0.99)), "betas is"),
    ],
)
def test_another_optimizer_than_asked_for_is_found_out(name, build, message) -> None:
    with pytest.raises(WrongOptimizerError, match=message):
        check_live(name, OPTIMIZERS[name], OPTIMIZERS[name].all_hyperparameters(0.9), stepped(build))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyperparameters": ("nu",)}, "a sweep sets only"),
        ({"hyperparameters": ("momentum",), "constants": {"momentum": 0.9}}, "at once"),
        ({"default_rates": {"prompt": (0.1,), "head": (0.1,)}}, "six rates"),
        ({"default_rates": {}}, "six rates"),
    ],
)
def test_entries_that_cannot_be_meant(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerEntry("x", lambda *_: None, **changes)


# -- twins, and ours against a library's ----------------------------------------------------------


@pytest.mark.parametrize(("without", "with_momentum"), TWINS)
def test_twins_differ_in_momentum_alone(without: str, with_momentum: str) -> None:
    """At momentum 0, the second of a pair makes the steps of the first."""
    (_, one), (name, other) = find_optimizer(without), find_optimizer(with_momentum)
    key = "beta1" if "beta1" in other.constants else "momentum"
    assert one.own_rate == other.own_rate
    assert one.default_rates == other.default_rates
    ends = []
    for entry, used in (
        (one, one.all_hyperparameters(0.9)),
        (other, {**other.all_hyperparameters(0.9), key: 0.0}),
        (other, other.all_hyperparameters(0.9)),
    ):
        model = torch.nn.Linear(3, 3)
        named = list(model.named_parameters())
        with torch.no_grad():
            for i, (_, p) in enumerate(named):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        by_role = live.role_groups(model, named, (), 0.01)
        groups = by_role if entry.by_role else live.weight_decay_groups(named, 0.01)
        optimizer = entry.build(groups, 0.1, used, 0)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        generator = torch.Generator().manual_seed(7)
        for _ in range(3):
            for _, p in named:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for _, p in named]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2]), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_signum_is_that_of_a_library(momentum: float) -> None:
    library = pytest.importorskip("pytorch_optimizer")
    ends = []
    for kind in (Signum, library.SignSGD):
        parameter = torch.nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(1)))
        optimizer = kind([parameter], lr=0.01, momentum=momentum, weight_decay=0.1)
        generator = torch.Generator().manual_seed(2)
        for _ in range(20):
            parameter.grad = torch.randn(50, generator=generator)
            optimizer.step()
        ends.append(parameter.detach())
    torch.testing.assert_close(*ends)
