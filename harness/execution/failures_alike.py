"""A sweep whose first runs all fail in the same way has one fault, which more runs would only repeat."""

from __future__ import annotations

import re

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunRecord

ENOUGH = 5
"""So many first runs that fail alike end a sweep."""


class FailuresAlike:
    """Watches the records of a sweep as they come.

    Args:
        n_runs: of the sweep.
    """

    def __init__(self, n_runs: int):
        self._n_runs, self._seen = n_runs, 0
        self._reasons: set[str] = set()

    def check(self, record: RunRecord) -> None:
        """Raises: UserError, if this and all records before it failed alike, and more runs would follow."""
        self._seen += 1
        # numbers may differ, as the bytes do that were asked for
        self._reasons.add(re.sub(r"\d+", "#", record.failure or "") if record.status == "failed" else "")
        if self._seen == ENOUGH < self._n_runs and len(self._reasons) == 1 and "" not in self._reasons:
            raise UserError(
                f"the first {ENOUGH} of {self._n_runs} runs failed alike: {record.failure}. The others were "
                f"not started. Mend the cause, then type the same command with --retry-failed"
            )
