"""Checks that a sweep goes with its launcher and with accelerate's configuration. No torch here."""

from __future__ import annotations

import os

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.launcher import check_flags, launched, turned_on
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.sweeps.request import Sweep

FSDP_SETTINGS = (
    ("VERSION", "2", "1"),
    ("RESHARD_AFTER_FORWARD", "true", "true"),
    ("ACTIVATION_CHECKPOINTING", "false", "false"),
)
"""Settings of accelerate: the name, the one value that is supported, and accelerate's own default."""


def check_launcher(sweep: Sweep) -> None:
    """Compare the sweep with what `accelerate launch` or `accelerate config` wrote into the environment.

    Raises:
        UserError: a setting there contradicts the sweep, or would be silently ignored.
    """
    check_flags()
    _check_ranks(sweep, launched().ranks)
    _check_arithmetic(sweep)
    if turned_on("FSDP"):
        _check_sharding(sweep)
    _check_plugins()


def _check_ranks(sweep: Sweep, ranks: int) -> None:
    """Raises: UserError, where the number of ranks does not go with the sweep."""
    if sweep.data_parallel_ranks not in (None, ranks):
        raise UserError(
            f"data_parallel_ranks is {sweep.data_parallel_ranks}, and {ranks} rank(s) were started: "
            f"type torchrun --nproc_per_node {sweep.data_parallel_ranks} harness/run.py ..."
        )
    # one GPU may hold a model whose parameters are in host memory
    if sweep.data_parallel_ranks == 1 and not turned_on("FSDP"):
        raise UserError(
            "--data-parallel shares each batch among the ranks of a launch, but there is one rank: type "
            "torchrun --nproc_per_node N harness/run.py ..., or leave out --data-parallel"
        )
    if sweep.executor == "ray" and ranks > 1:
        raise UserError(
            f"--executor ray does not go with {ranks} ranks of a launcher: Ray places the runs itself. "
            f"Type momentum-bench run ... without a launcher."
        )
    if sweep.extend_grid and ranks > 1:
        raise UserError(
            f"--extend-grid {sweep.extend_grid} does not go with {ranks} ranks of a launcher: it waits for "
            f"all runs of a grid, and no rank does. First run the grid without --extend-grid, then type the "
            f"command again with --extend-grid and without a launcher."
        )


def _check_arithmetic(sweep: Sweep) -> None:
    """Raises: UserError, where accelerate has another precision or accumulation than the sweep."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    asked = PRECISIONS[sweep.precision].autocast
    if precision not in ("no", asked):
        ours = [name for name, meant in PRECISIONS.items() if meant.autocast == precision]
        instead = f"type --precision {ours[0]}, or" if ours else f"{precision} is not supported: type"
        raise UserError(
            f"accelerate's configuration says mixed_precision={precision}, but this sweep has "
            f"--precision {sweep.precision}: {instead} accelerate launch --mixed_precision no ... (without "
            f"accelerate launch: unset ACCELERATE_MIXED_PRECISION)"
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto", str(sweep.gradient_accumulation_steps)):
        raise UserError(
            f"accelerate's configuration says gradient_accumulation_steps={accumulation}, but this sweep has "
            f"--gradient-accumulation-steps {sweep.gradient_accumulation_steps}: type "
            f"--gradient-accumulation-steps {accumulation}, or accelerate launch "
            f"--gradient_accumulation_steps 1"
        )


def _check_plugins() -> None:
    """Raises: UserError, where accelerate turns on something that is not supported."""
    for plugin in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if turned_on(plugin):
            raise UserError(
                f"accelerate's configuration turns on {plugin}, which this version does not support: give "
                f"accelerate launch a --config_file in which it is off, or, for a model that does not fit on "
                f"one device, one with FSDP"
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserError(
            "accelerate's configuration turns on torch.compile (dynamo_backend), which would change the "
            "rounding: type accelerate launch --dynamo_backend no"
        )


def _check_sharding(sweep: Sweep) -> None:
    """Raises: UserError, where FSDP is asked for in a way that is not supported."""
    if sweep.data_parallel_ranks is None:
        raise UserError(
            "accelerate's configuration turns on FSDP, so the ranks hold one model together: add "
            "--data-parallel, so that they also share each run, or turn FSDP off"
        )
    if sweep.peft:
        raise UserError(
            f"--peft {sweep.peft} does not go with FSDP: here FSDP is for whole models. Leave out --peft, or "
            f"turn FSDP off in accelerate's configuration."
        )
    for name, wanted, unsaid in FSDP_SETTINGS:
        found = os.environ.get(f"FSDP_{name}", unsaid).lower()
        if found != wanted:
            flag = f"fsdp_{name.lower()}"
            raise UserError(
                f"accelerate's configuration says {flag}: {found}, and only {wanted} is supported: give that "
                f"answer in accelerate config, or type accelerate launch --{flag} {wanted}"
            )
