"""The noise floor as it is stored: how much repetitions of the same run differ. No torch here."""

from __future__ import annotations

from pathlib import Path

from momentum_bench.harness.records.files import read_record
from momentum_bench.harness.records.schema import RUN_ID, RunSpec, Stored


class Spread(Stored):
    """Repetitions of one run, in the order in which they ended; metrics are fractions.

    Attributes:
        deterministic: whether only deterministic algorithms were allowed.
        dev_metrics, test_metrics: of the repetitions that are done (the others diverged).
        n_distinct: how many different sets of chosen parameters there are.
        largest_parameter_difference: largest absolute difference from the first done repetition, over
            all parameters.
        failure: why there is no repetition: torch has no deterministic algorithm for an operation.
    """

    deterministic: bool
    n_repeats: int
    statuses: tuple[str, ...] = ()
    dev_metrics: tuple[float, ...] = ()
    test_metrics: tuple[float, ...] = ()
    n_distinct: int = 0
    largest_parameter_difference: float = 0.0
    failure: str | None = None

    @property
    def dev_range(self) -> float:
        """Largest minus smallest dev metric."""
        return max(self.dev_metrics, default=0.0) - min(self.dev_metrics, default=0.0)

    @property
    def test_range(self) -> float:
        """Largest minus smallest test metric."""
        return max(self.test_metrics, default=0.0) - min(self.test_metrics, default=0.0)


class NoiseFloor(Stored):
    """One run, repeated as the user asked for it, and repeated with deterministic algorithms alone.

    `metric` is the metric of the dev and test scores; `device` and `environment` say where the runs ran.
    """

    spec: RunSpec
    metric: str
    device: str
    as_asked: Spread
    deterministic: Spread
    environment: dict[str, str]


def path_of(output_dir: Path, spec: RunSpec) -> Path:
    """The file of a run's noise floor, in a folder next to the runs."""
    return output_dir / "noise_floor" / f"{spec.run_id}.json"


def noise_floors(output_dir: Path) -> list[NoiseFloor]:
    """All whole noise floors of a results directory, sorted by run id."""
    paths = sorted(p for p in (output_dir / "noise_floor").glob("*.json") if RUN_ID.fullmatch(p.stem))
    return [floor for path in paths if (floor := read_record(path, NoiseFloor)) is not None]


def noise_sentence(floor: NoiseFloor) -> str:
    """The noise floor in one sentence, in percentage points; reports show it next to their differences."""
    spec, spread = floor.spec, floor.as_asked
    return (
        f"{spec.task}: noise floor: {spread.n_repeats} repetitions of one run ({spec.label}) on "
        f"{floor.device} differ by {100 * spread.test_range:.2f} points of test {floor.metric} ("
        + (
            f"with deterministic algorithms: {100 * floor.deterministic.test_range:.2f})."
            if floor.deterministic.failure is None
            else "there is no deterministic way)."
        )
    )
