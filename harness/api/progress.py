"""A sweep's progress bar, in a notebook or on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from momentum_bench.harness.execution.plan_sweep import SweepEvents
from momentum_bench.harness.messages import note
from momentum_bench.harness.records.schema import RunRecord


class ProgressBar(SweepEvents):
    """A bar that counts the runs; messages of the sweep are lines on stderr.

    In a log file there is no bar, and each finished run is a line. Left as a context, the bar is closed.
    """

    def __init__(self) -> None:
        self.shows_steps = sys.stderr.isatty()
        self._shows_bar = self.shows_steps or _in_notebook()
        self._bar: Any = None

    def message(self, text: str) -> None:
        note(text)

    def begun(self, n_runs: int) -> None:
        self.close()
        if n_runs and self._shows_bar:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=n_runs, desc="runs")

    def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
        text = _in_a_line(record)
        if self._bar is None:
            note(f"[{number}/{n_runs}] {text}")
            return
        self._bar.update()
        self._bar.set_postfix_str(text)
        if record.status != "done":
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_notebook() -> bool:
    """Whether IPython runs this process's code, in a notebook or in its own shell."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _in_a_line(record: RunRecord) -> str:
    if record.best is None:
        return f"{record.spec.label}: {record.status} ({record.failure})"
    return f"{record.spec.label}: dev {record.best.dev_metric:.4f}"
