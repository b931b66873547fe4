"""Named sets of defaults, and the name that a table gives to a run's settings. No torch here."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import in_examples
from momentum_bench.harness.records.schema import IN_STEPS, RunSpec
from momentum_bench.harness.sweeps.request import SETTINGS

BY_PROTOCOL = (
    "batch_size",
    "max_steps",
    "eval_every",
    "lr_schedule",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "test_limit",
)
"""Settings whose default depends on the protocol, in the order in which tables name them."""


def _defaults_of(protocol: str) -> dict[str, Any]:
    defaults = {name: SETTINGS[name].about.by_protocol for name in BY_PROTOCOL}
    return {name: of_each[protocol] for name, of_each in defaults.items() if of_each is not None}


PROTOCOLS: dict[str, dict[str, Any]] = {
    "mezo": _defaults_of("mezo"),  # Malladi et al. 2023, RoBERTa experiments; the code the paper used
    # the defaults of an image task are its own, so a table names all of them
    "from-scratch": dict.fromkeys([*BY_PROTOCOL, "decay_steps"]),
    "lm-bff": _defaults_of("lm-bff"),  # Gao et al. 2021, but for its optimizer and grids
}

UNLESS_STATED: dict[str, Any] = {
    name: SETTINGS[name].default
    for name in (
        "dropout",
        "precision",
        "gradient_accumulation_steps",
        "threads_per_run",
        "peft",
        "freeze",
        "head",
        "splits",
        "decay_steps",
    )
}
"""Settings with the same default in every protocol, which tables name only where they differ from it."""


def settings_name(spec: RunSpec) -> str:
    """The protocol's name, then every setting that differs from it: `mezo max_steps=40`.

    A setting that is tuned is called so: `mezo batch_size=tuned`.

    Raises:
        UserError: a record of another version names a protocol that this one does not know.
    """
    if spec.protocol not in PROTOCOLS:
        raise UserError(
            f"run {spec.run_id} names protocol {spec.protocol!r}, and this version knows "
            f"{', '.join(PROTOCOLS)}: use the version that wrote it, or leave that directory out"
        )
    expected = PROTOCOLS[spec.protocol] | UNLESS_STATED
    actual = spec.model_dump() | dict.fromkeys(spec.tuned or (), "tuned")
    if spec.examples is not None:
        actual |= {n: f"{_text(in_examples(spec, n))}/batch_size" for n in IN_STEPS if actual[n]}
    changed = [f"{k}={_text(actual[k])}".lower() for k in expected if actual[k] != expected[k]]
    return " ".join([spec.protocol, *changed])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
