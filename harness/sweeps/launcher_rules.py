"""A sweep against what a launcher or accelerate's configuration says."""

from __future__ import annotations

import os

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.launcher import launched, turned_on
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.sweeps.request import Sweep

FSDP_SETTINGS = (
    ("VERSION", "2", "1"),
    ("RESHARD_AFTER_FORWARD", "true", "true"),
    ("OFFLOAD_PARAMS", "false", "false"),
    ("ACTIVATION_CHECKPOINTING", "false", "false"),
)
"""Of accelerate: the setting, the one value that is run, and what it is where nothing is said."""


def check_launcher(sweep: Sweep) -> None:
    """Compare the sweep with what `accelerate launch` or `accelerate config` put in the environment.

    Raises:
        UserError: a setting from there contradicts the sweep, or would be ignored without a word.
    """
    ranks = launched().ranks
    if sweep.data_parallel_ranks not in (None, ranks):
        raise UserError(
            f"the sweep's data_parallel_ranks is {sweep.data_parallel_ranks}, and {ranks} rank(s) were "
            f"started: torchrun --nproc_per_node {sweep.data_parallel_ranks} harness/run.py ..."
        )
    if sweep.data_parallel_ranks == 1:
        raise UserError(
            "--data-parallel shares each batch among the ranks of a launch, and there is one rank: start it "
            "with torchrun --nproc_per_node N harness/run.py, or leave the flag out"
        )
    if sweep.executor == "ray" and ranks > 1:
        raise UserError(
            f"--executor ray is started once, and Ray places the runs; here are {ranks} ranks of a launcher: "
            f"start it by momentum-bench run"
        )
    if sweep.extend_grid and ranks > 1:
        raise UserError(
            f"--extend-grid {sweep.extend_grid} waits for all runs of a grid, which {ranks} ranks do not: "
            f"run the grid without it first, then type the command again, with it, without a launcher"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    asked = PRECISIONS[sweep.precision].autocast
    if precision not in ("no", asked):
        raise UserError(
            f"accelerate's configuration says mixed_precision={precision}, but this sweep's "
            f"precision is {sweep.precision}: pass --precision bf16, or accelerate launch "
            f"--mixed_precision no"
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto", str(sweep.gradient_accumulation_steps)):
        raise UserError(
            f"accelerate's configuration says gradient_accumulation_steps={accumulation}, but this "
            f"sweep's is {sweep.gradient_accumulation_steps}: pass --gradient-accumulation-steps "
            f"{accumulation}, or accelerate launch --gradient_accumulation_steps 1"
        )
    if turned_on("FSDP"):
        _check_sharding(sweep)
    for plugin in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if turned_on(plugin):
            raise UserError(
                f"accelerate's configuration turns on {plugin}, which this version does not run: use "
                f"accelerate launch --config_file with it turned off, or with FSDP for a model that does "
                f"not fit one device"
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserError(
            "accelerate's configuration asks for torch.compile (dynamo_backend), which would change "
            "rounding unasked: use accelerate launch --dynamo_backend no"
        )


def _check_sharding(sweep: Sweep) -> None:
    """Raises: UserError, where FSDP is asked for in a way that is not run."""
    if sweep.data_parallel_ranks is None:
        raise UserError(
            "accelerate's configuration turns on FSDP, by which the ranks hold one model together: add "
            "--data-parallel, so that they share each run too, or turn FSDP off"
        )
    if sweep.peft:
        raise UserError(
            f"FSDP is for whole models here, not for --peft {sweep.peft}: turn it off in accelerate's "
            f"configuration, or leave the adapter out"
        )
    for name, wanted, unsaid in FSDP_SETTINGS:
        found = os.environ.get(f"FSDP_{name}", unsaid).lower()
        if found != wanted:
            flag = f"fsdp_{name.lower()}"
            raise UserError(
                f"accelerate's configuration says {flag}: {found}, and FSDP is run with {wanted} alone: "
                f"answer so in accelerate config, or pass accelerate launch --{flag} {wanted}"
            )
