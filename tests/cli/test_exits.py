from __future__ import annotations

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.records.store import Store
from tests.helpers.specs import make_record

PLACES = {
    "run --task sst2": "momentum_bench.harness.cli.run.make_sweep",
    "status DIR": "momentum_bench.harness.records.store.Store.check_version",
    "leaderboard build DIR": "momentum_bench.harness.records.store.Store.check_version",
    "leaderboard check DIR": "momentum_bench.leaderboards.checking.check.check",
    "leaderboard publish DIR --to DIR": "momentum_bench.leaderboards.publishing.merge.check_own",
    "reproduce 0 DIR": "momentum_bench.harness.records.store.Store.check_version",
    "tasks list": "momentum_bench.harness.cli.tasks.find_task",
    "tasks show sst2": "momentum_bench.harness.cli.tasks.find_task",
    "tasks check sst2": "momentum_bench.harness.cli.tasks.find_task",
    "tasks split sst2 --out DIR": "momentum_bench.harness.cli.tasks.find_task",
    "noise-floor DIR": "momentum_bench.harness.records.store.Store.check_version",
}
"""Of each command, a function that it calls."""


@pytest.mark.parametrize("command", PLACES)
def test_ctrl_c_ends_a_command_with_one_line_and_130(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(tmp_path)
    store.open()
    store.write(make_record(seed=1))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PLACES[command], interrupted)
    done = CliRunner().invoke(app, command.replace("DIR", str(tmp_path)).split())
    assert done.exit_code == 130
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("interrupted: ")
    assert done.stdout == ""


@pytest.mark.parametrize("command", PLACES)
def test_a_file_that_the_disk_refuses_ends_a_command_with_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(tmp_path)
    store.open()
    store.write(make_record(seed=1))

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/some/file")

    monkeypatch.setattr(PLACES[command], refused)
    done = CliRunner().invoke(app, command.replace("DIR", str(tmp_path)).split())
    assert done.exit_code == 2
    assert done.stderr == "error: /some/file: Read-only file system\n"
