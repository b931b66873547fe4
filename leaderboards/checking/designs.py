"""Whether the runs that a design planned are there.

A board may be published while it grows: its last runs are to come. But runs come in an order. The confirming
seeds start when all tuning runs have ended, and a look starts when all runs of the look before have ended. So
whoever takes runs away that he does not like leaves a gap that growth cannot leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from momentum_bench.harness.records.design import Design, setting_of
from momentum_bench.harness.records.schema import RunRecord, RunSpec, canonical_json
from momentum_bench.harness.sweeps.confirming import standing

MOST_NAMED = 3


def design_gaps(designs: Sequence[Design], records: Iterable[RunRecord]) -> tuple[list[str], list[str]]:
    """The designs that lack runs: a line for each gap that growth cannot leave, and for each open end.

    Where several designs share a setting, the later runs may be those of another design, so each gap is taken
    to be an open end.
    """
    by_id = {record.spec.run_id: record for record in records}
    shared = Counter(key for design in designs for key in _settings(design))
    gaps, open_ends = [], []
    for design in designs:
        now = standing(design, by_id)
        tuning = [spec for of_task in now.tuned.values() for spec in of_task.missing]
        missing = tuning or [spec for spec in now.runs if spec.run_id not in by_id]
        if not missing:
            continue
        seeds = design.confirm_seeds[0 if tuning else now.replayed.next_look or 0 :]
        alone = all(shared[key] == 1 for key in _settings(design))
        later = alone and any(
            record.spec.seed in seeds and canonical_json(setting_of(record.spec)) in _settings(design)
            for record in by_id.values()
        )
        role = "tuning" if tuning else "confirming"
        text = (
            f"design {design.design_id}: {len(missing)} of its {role} runs are not there, {_named(missing)}"
        )
        if later:
            gaps.append(f"{text}, but runs that come after them are")
        else:
            open_ends.append(f"{text}: it is not finished")
    return gaps, open_ends


def _settings(design: Design) -> set[str]:
    return {canonical_json(design.setting(task)) for task in design.tasks}


def _named(missing: Sequence[RunSpec]) -> str:
    cells = [f"{s.task} {s.optimizer} seed {s.seed} rate {s.learning_rate:g}" for s in missing[:MOST_NAMED]]
    return ", ".join(cells) + (", ..." if len(missing) > MOST_NAMED else "")
