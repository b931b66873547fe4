"""A leaderboard with all its records that is written again and again while a sweep runs: `run --archive`."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.plan_sweep import SweepEvents
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.archive import ARCHIVE, ArchivedStore
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.rendering.files import check_folder, save

SECONDS_BETWEEN = 600.0
"""So much work is lost at most if the machine is lost with its results directory."""


class ArchivingEvents(SweepEvents):
    """Tells another object what happens, and writes the leaderboard into a folder from time to time.

    The folder only gains runs: what its archive holds already stays in it, also runs of other sweeps.
    """

    def __init__(
        self, told: SweepEvents, store: Store, folder: Path, seconds_between: float = SECONDS_BETWEEN
    ):
        """
        Raises:
            UserError: the folder is a results directory, it cannot be written, or it holds files of others
                that would be replaced.
        """
        if folder.resolve() == store.output_dir.resolve() or (folder / "runs").is_dir():
            raise UserError(
                f"--archive {folder}: that is a results directory, which has a file for each run; name "
                f"another folder"
            )
        check_folder(folder)
        self.told, self.store, self.folder = told, store, folder
        self.seconds_between = seconds_between
        self.written = monotonic()
        self.shows_steps = told.shows_steps

    def message(self, text: str) -> None:
        """See `SweepEvents`."""
        self.told.message(text)

    def begun(self, n_runs: int) -> None:
        """See `SweepEvents`."""
        self.told.begun(n_runs)

    def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
        """See `SweepEvents`. Writes the leaderboard if the last time is long ago."""
        self.told.finished(number, n_runs, record)
        if monotonic() - self.written >= self.seconds_between:
            try:
                self.write()
            except UserError as error:  # the sweep does not need this folder
                self.told.message(f"warning: {error}")

    def write(self) -> None:
        """Write the leaderboard of the results directory and of what the folder holds into the folder."""
        archive = self.folder / ARCHIVE
        earlier = [ArchivedStore(self.folder, archive)] if archive.is_file() else []
        save(build(self.store, *earlier), self.folder, archive=True)
        self.written = monotonic()
