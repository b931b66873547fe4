"""The noise floor, as it is stored: what differs between repetitions of one and the same run. No torch."""

from __future__ import annotations

from pathlib import Path

from momentum_bench.harness.records.files import read_record
from momentum_bench.harness.records.schema import RunSpec, Stored


class Spread(Stored):
    """Repetitions of one run, in the order in which they ended; metrics are fractions.

    Attributes:
        deterministic: whether only deterministic algorithms were allowed.
        dev_metrics, test_metrics: of the repetitions that were done (others diverged).
        n_distinct: how many different sets of chosen parameters came out.
        largest_parameter_difference: max abs over all parameters, from the first done repetition.
        failure: why there is no repetition (torch has no deterministic algorithm for something).
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
    """One run repeated as it was asked for, and with deterministic algorithms alone.

    `metric` is the one of dev and test scores; `device` and `environment` say where it was.
    """

    spec: RunSpec
    metric: str
    device: str
    as_asked: Spread
    deterministic: Spread
    environment: dict[str, str]


def path_of(output_dir: Path, spec: RunSpec) -> Path:
    """Where the noise floor of a run lies, beside the runs."""
    return output_dir / "noise_floor" / f"{spec.run_id}.json"


def noise_floors(output_dir: Path) -> list[NoiseFloor]:
    """The whole ones of a results directory, by run id."""
    paths = sorted((output_dir / "noise_floor").glob("*.json"))
    return [found for path in paths if (found := read_record(path, NoiseFloor)) is not None]


def noise_sentence(found: NoiseFloor) -> str:
    """What stands beside differences between optimizers; in points, as they do."""
    spec, spread = found.spec, found.as_asked
    return (
        f"{spec.task}: noise floor: {spread.n_repeats} repetitions of one run ({spec.label}) on "
        f"{found.device} differ by {100 * spread.test_range:.2f} points of test {found.metric} ("
        + (
            f"with deterministic algorithms: {100 * found.deterministic.test_range:.2f})."
            if found.deterministic.failure is None
            else "there is no deterministic way)."
        )
    )
