"""Which settings do not go together: a table of pairs, and a few rules of arithmetic. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import IN_STEPS
from momentum_bench.harness.sweeps.request import Sweep, flag_of


@dataclass(frozen=True)
class Choice:
    """A setting at some of its values.

    Attributes:
        name: the setting.
        only: the values that are meant; None: all that are not in `but`.
        but: the values that are not meant. None, the value of most settings that nobody asked for, is
            one of them unless others are named.
    """

    name: str
    only: tuple[Any, ...] | None = None
    but: tuple[Any, ...] = (None,)

    def is_made(self, sweep: Sweep) -> bool:
        """Whether the sweep has the setting at one of these values."""
        value = getattr(sweep, self.name)
        return value in self.only if self.only is not None else value not in self.but


@dataclass(frozen=True)
class Exclusive:
    """Two choices that no sweep may have both.

    Attributes:
        reason: why, as the rest of a sentence after a colon.
        advice: what to type instead.
    """

    first: Choice
    second: Choice
    reason: str
    advice: str = "Leave out one of them."

    def message(self, sweep: Sweep) -> str | None:
        """What to tell the user; None: the sweep does not have both."""
        if not (self.first.is_made(sweep) and self.second.is_made(sweep)):
            return None
        both = f"{typed(sweep, self.first.name)} does not go with {typed(sweep, self.second.name)}"
        return f"{both}: {self.reason}. {self.advice}"


_NO_STEPS = Choice("max_steps", only=(0,))
_RAY = Choice("executor", only=("ray",))
_TOGETHER = Choice("data_parallel_ranks")
_CHECKPOINTS = Choice("checkpoint_every")
_RECORDED = Choice("cuda_graphs")
_AGAIN = Choice("checkpoint_activations")
_SCRATCH = Choice("method", only=("scratch",))

_CONFIRMED = Choice("confirm_seeds")
_UNTIL = Choice("until_decided")

_NO_CONFIRMING = "Leave out the options of confirming seeds."
_NOTHING_TRAINED = "without steps nothing is trained"
_ONE_PROCESS = "a recorded step belongs to one process"
_PRE_TRAINED = "it is for pre-trained models, and the network of an image task starts from random weights"

EXCLUSIVE: tuple[Exclusive, ...] = (
    Exclusive(
        _NO_STEPS,
        Choice("method", only=("head",)),
        "the head is new and random, so its score without training says nothing",
        "Use --method prompt, or --method causal with a decoder.",
    ),
    Exclusive(_NO_STEPS, Choice("peft"), _NOTHING_TRAINED),
    Exclusive(_NO_STEPS, Choice("freeze"), _NOTHING_TRAINED),
    Exclusive(
        Choice("head"),
        Choice("method", but=("head",)),
        "only the method head has a classifier",
        "Add --method head, or leave out --head.",
    ),
    Exclusive(Choice("freeze"), Choice("peft"), "an adapter leaves the whole pre-trained model as it is"),
    Exclusive(
        Choice("decay_steps", but=(None, ())),
        Choice("lr_schedule", but=("step",)),
        "only the schedule step drops the rate at given steps",
        "Use --lr-schedule step, or leave out --decay-steps.",
    ),
    Exclusive(
        Choice("k", only=(0,)),
        Choice("method", but=("scratch",)),
        "0 stands for all training rows, which only image tasks use",
        "Give --k at least 1.",
    ),
    Exclusive(_NO_STEPS, _CONFIRMED, "without training there is no learning rate to confirm", _NO_CONFIRMING),
    Exclusive(_NO_STEPS, _UNTIL, "without training there is no learning rate to confirm", _NO_CONFIRMING),
    Exclusive(
        Choice("learning_rate_axis", only=("torch",)),
        _CONFIRMED,
        "confirming seeds compare optimizers at one effective rate",
        "Give --learning-rates as effective rates.",
    ),
    Exclusive(
        Choice("learning_rate_axis", only=("torch",)),
        _UNTIL,
        "confirming seeds compare optimizers at one effective rate",
        "Give --learning-rates as effective rates.",
    ),
    Exclusive(Choice("peft"), _SCRATCH, _PRE_TRAINED, "Leave out --peft."),
    Exclusive(Choice("freeze"), _SCRATCH, _PRE_TRAINED, "Leave out --freeze."),
    Exclusive(Choice("dropout"), _SCRATCH, _PRE_TRAINED, "Leave out --dropout."),
    Exclusive(_TOGETHER, _SCRATCH, _PRE_TRAINED, "Leave out --data-parallel."),
    Exclusive(_AGAIN, _SCRATCH, _PRE_TRAINED, "Leave out --checkpoint-activations."),
    Exclusive(_AGAIN, _NO_STEPS, _NOTHING_TRAINED),
    Exclusive(_AGAIN, _RECORDED, "a recorded step cannot set the random numbers back for a second pass"),
    Exclusive(_AGAIN, Choice("peft", only=("prefix",)), "the keys of a prefix are computed only once"),
    Exclusive(Choice("runs_at_a_time", but=(None, 1)), _TOGETHER, "all ranks work on one run at a time"),
    Exclusive(_CHECKPOINTS, _TOGETHER, "only runs of one process are saved"),
    Exclusive(_RECORDED, _TOGETHER, _ONE_PROCESS),
    Exclusive(_RECORDED, _CHECKPOINTS, "a run with recorded steps is not saved"),
    Exclusive(
        _RECORDED,
        Choice("gradient_accumulation_steps", but=(1,)),
        "all recorded steps must be alike, and micro-batches are not",
    ),
    Exclusive(_RECORDED, _NO_STEPS, "there is no step to record"),
    Exclusive(_CHECKPOINTS, _RAY, "a run that a cluster loses starts from its first step"),
    Exclusive(Choice("log_with"), _RAY, "the runs of a cluster end on other machines"),
    Exclusive(
        Choice("runs_at_a_time", only=("auto",)),
        _RAY,
        "Ray does not ask how much memory a run takes",
        "Give the number of runs that share a GPU.",
    ),
    Exclusive(
        Choice("data_revision"),
        Choice("data_dir"),
        "only a data set on the hub has revisions",
    ),
    Exclusive(
        Choice("ray_address"),
        Choice("executor", but=("ray",)),
        "only Ray has an address",
        "Add --executor ray, or leave out --ray-address.",
    ),
)
"""Each pair that is refused, why, and what to do."""


def _warm_up(sweep: Sweep) -> str | None:
    if sweep.warmup_steps < max(sweep.max_steps, 1):
        return None
    return (
        f"{typed(sweep, 'warmup_steps')} leaves no step of {typed(sweep, 'max_steps')}: "
        f"give a smaller number of warm-up steps"
    )


def _micro_batches(sweep: Sweep) -> str | None:
    if all(size % sweep.gradient_accumulation_steps == 0 for size in sweep.batch_sizes):
        return None
    return (
        f"{typed(sweep, 'batch_size')} is the global batch and does not divide into equal parts for "
        f"{typed(sweep, 'gradient_accumulation_steps')}: give a multiple of "
        f"{sweep.gradient_accumulation_steps} as the batch size"
    )


def _parts_of_ranks(sweep: Sweep) -> str | None:
    ranks = sweep.data_parallel_ranks
    sizes = [size // sweep.gradient_accumulation_steps for size in sweep.batch_sizes]
    uneven = [size for size in sizes if ranks is not None and size % ranks]
    if not uneven:
        return None
    return (
        f"--data-parallel: a micro-batch of {uneven[0]} ({typed(sweep, 'batch_size')}, "
        f"{typed(sweep, 'gradient_accumulation_steps')}) does not divide into equal parts for "
        f"{sweep.data_parallel_ranks} ranks"
    )


def _decays_are_given(sweep: Sweep) -> str | None:
    if sweep.lr_schedule != "step" or sweep.decay_steps:
        return None
    return "--lr-schedule step needs --decay-steps, for example --decay-steps 500,750"


def _decays_ascend(sweep: Sweep) -> str | None:
    decays = list(sweep.decay_steps or ())
    inside = all(sweep.warmup_steps < step < sweep.max_steps for step in decays)
    if inside and decays == sorted(set(decays)):
        return None
    return (
        f"{typed(sweep, 'decay_steps')} must ascend between {typed(sweep, 'warmup_steps')} and "
        f"{typed(sweep, 'max_steps')}"
    )


def _confirming_is_asked(sweep: Sweep) -> str | None:
    """An option that means nothing without confirming seeds."""
    if sweep.confirms:
        return None
    given = [name for name in ("tune_seeds", "looks") if getattr(sweep, name) is not None]
    given += ["confirm"] if sweep.confirm != "matched" else []
    if not given:
        return None
    return f"{typed(sweep, given[0])} is for confirming seeds: add --confirm-seeds N or --until-decided"


def _looks_are_until_decided(sweep: Sweep) -> str | None:
    if sweep.looks is None or sweep.until_decided or not sweep.confirms:
        return None
    return f"{typed(sweep, 'looks')} is for --until-decided: add it, or leave out --looks"


def _axes_are_tuned(sweep: Sweep) -> str | None:
    """Where a list of values cannot be tuned, or trials not be drawn."""
    if not sweep.tunes:
        if sweep.trials is None:
            return None
        return (
            f"{typed(sweep, 'trials')} draws points of a grid with several axes: give a list of --momentum, "
            f"--batch-size or --weight-decay, or --tune, or leave out --trials"
        )
    if sweep.trials is not None and sweep.extend_grid:
        return (
            f"{typed(sweep, 'trials')} does not go with {typed(sweep, 'extend_grid')}: a drawn grid has no "
            f"edge to grow at. Leave out one of them."
        )
    what = typed(sweep, next(iter(sweep.axes), "tune"))
    if not sweep.max_steps:
        return f"{what} does not go with --max-steps 0: {_NOTHING_TRAINED}. Give one value."
    if sweep.learning_rate_axis == "torch":
        return (
            f"{what} does not go with --learning-rate-axis torch: torch's rates depend on the momentum. Give "
            f"--learning-rates as effective rates."
        )
    return None


def _kept_examples(sweep: Sweep) -> str | None:
    """Where the numbers of steps of a larger batch would be no whole numbers."""
    if sweep.batch_size_keeps == "steps":
        return None
    what, smallest = typed(sweep, "batch_size_keeps"), sweep.batch_sizes[0]
    if len(sweep.batch_sizes) == 1:
        return f"{what} is for several batch sizes: give a list of --batch-size, or leave it out"
    fitting = math.lcm(*sweep.batch_sizes) // smallest
    for name in IN_STEPS:
        steps = getattr(sweep, name) or 0
        if any(step % fitting for step in (steps if isinstance(steps, tuple) else (steps,))):
            return (
                f"{what}: {typed(sweep, name)} at the smallest batch size, {smallest}, is no whole number of "
                f"larger batches: give a multiple of {fitting} as {flag_of(name)}"
            )
    return None


def _two_arms(sweep: Sweep) -> str | None:
    if not sweep.confirms or len(sweep.optimizers) > 1:
        return None
    return (
        f"--optimizers {sweep.optimizers[0]}: confirming seeds compare optimizers, so give two or more, or "
        f"leave out the options of confirming seeds"
    )


def _files_are_in_a_folder(sweep: Sweep) -> str | None:
    given = [name for name in ("tsv", "splits") if getattr(sweep, name) is not None]
    if not given or sweep.data_dir is not None:
        return None
    return (
        f"{typed(sweep, given[0])} is about files of a folder: add --data-dir DIR, or leave out "
        f"{flag_of(given[0])}"
    )


ARITHMETIC: tuple[Callable[[Sweep], str | None], ...] = (
    _warm_up,
    _micro_batches,
    _parts_of_ranks,
    _decays_are_given,
    _decays_ascend,
    _confirming_is_asked,
    _looks_are_until_decided,
    _two_arms,
    _files_are_in_a_folder,
    _axes_are_tuned,
    _kept_examples,
)


def check_rules(sweep: Sweep) -> None:
    """Raises: UserError, with a line for each rule that the sweep breaks."""
    broken = [message for pair in EXCLUSIVE if (message := pair.message(sweep))]
    broken += [message for rule in ARITHMETIC if (message := rule(sweep))]
    if broken:
        raise UserError("\n".join(broken))


def typed(sweep: Sweep, name: str) -> str:
    """A setting and its value in a sweep, as they are typed on the command line."""
    value = getattr(sweep, name)
    if value is True or name == "data_parallel_ranks":
        return flag_of(name)
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"{flag_of(name)} {'none' if value is None else value}"
