"""Named sets of defaults, and the name that a run's settings go by."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunSpec

_MEZO: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 1000,
    "eval_every": 100,
    "lr_schedule": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "test_limit": 1000,
}

PROTOCOLS: dict[str, dict[str, Any]] = {
    "mezo": _MEZO,  # Malladi et al. 2023, RoBERTa experiments; the code the paper used
    "from-scratch": dict.fromkeys([*_MEZO, "decay_steps"]),  # an image task's own; all are named
    "lm-bff": _MEZO | {"test_limit": None},  # Gao et al. 2021, but for its optimizer and grids
}

UNLESS_STATED: dict[str, Any] = {
    "dropout": None,
    "precision": "fp32",
    "gradient_accumulation_steps": 1,
    "threads_per_run": 1,
    "peft": None,
    "freeze": None,
    "decay_steps": None,
}
"""Settings that no protocol speaks of, with the values that need no mention."""


def settings_name(spec: RunSpec) -> str:
    """The protocol's name, followed by every setting that departs from it: `mezo max_steps=40`.

    Raises:
        UserError: a record of another version names a protocol that this one does not know.
    """
    if spec.protocol not in PROTOCOLS:
        raise UserError(
            f"run {spec.run_id} names protocol {spec.protocol!r}, and this version knows "
            f"{', '.join(PROTOCOLS)}: use the version that wrote it, or leave that directory out"
        )
    expected = PROTOCOLS[spec.protocol] | UNLESS_STATED
    actual = spec.model_dump()
    changed = [f"{k}={_text(actual[k])}".lower() for k in expected if actual[k] != expected[k]]
    return " ".join([spec.protocol, *changed])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
