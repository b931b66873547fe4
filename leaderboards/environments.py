"""The facts of a run's environment that move its result, and where runs differ in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from momentum_bench.harness.records.schema import RunRecord

FACTS: Mapping[str, str] = MappingProxyType(
    {
        "device": "device",
        "torch": "torch",
        "effective_precision": "precision in effect",
        "matmul_precision": "precision of matrix products",
        "momentum_bench": "momentum-bench",
    }
)
"""The columns that state these facts, and what messages call them."""

Facts = Mapping[str, tuple[str, ...]]
"""For each fact the values that some runs have, sorted."""


def environment_facts(run: RunRecord) -> dict[str, str]:
    """What is known of a run's environment, as far as it moves results.

    It is the kind of device, torch's minor version, the precision that was in effect, and the version of
    this package, whose loop ran. Patch versions of torch, names of processors and GPUs, and commits are in
    the record but not here: they rarely move a result by more than rounding does.
    """
    facts = {}
    if "torch" in run.environment:
        facts["torch"] = ".".join(run.environment["torch"].split("+")[0].split(".")[:2])
    if "momentum_bench" in run.environment:
        facts["momentum_bench"] = run.environment["momentum_bench"]
    if live := run.read_back:
        facts["device"] = live.device
        autocast = f" with {live.autocast_dtype} autocast" if live.autocast_dtype else ""
        facts["effective_precision"] = f"{live.parameter_dtype}{autocast}"
        override = run.environment.get("NVIDIA_TF32_OVERRIDE") if live.device == "cuda" else None
        if live.matmul_precision:
            stated = "" if override is None else f" with NVIDIA_TF32_OVERRIDE={override}"
            facts["matmul_precision"] = live.matmul_precision + stated
    return facts


def facts_of(runs: Iterable[RunRecord]) -> dict[str, tuple[str, ...]]:
    """The values of each fact over some runs.

    A run that does not state a fact, because it ended before its model ran or because its record is older,
    adds no value, so it differs from no other run.
    """
    found = [environment_facts(run) for run in runs]
    return {name: tuple(sorted({facts[name] for facts in found if name in facts})) for name in FACTS}


def mixed(*of: Facts) -> str:
    """The facts that have several values, in words; empty where nothing is mixed."""
    values = {name: sorted({value for facts in of for value in facts[name]}) for name in FACTS}
    return ", ".join(
        f"{what} {' and '.join(values[name])}" for name, what in FACTS.items() if len(values[name]) > 1
    )
