"""Publishing to a git clone and to the hub adds rows and loses none, even with two publishers at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import MARKER, Store
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.publishing.git_target import publish_to_git
from momentum_bench.leaderboards.publishing.hub_target import repository
from momentum_bench.leaderboards.publishing.merge import Changes, check_own, merge
from momentum_bench.leaderboards.rendering.files import contents
from tests.conftest import SOURCES
from tests.helpers.clones import TOKEN, checked_out, git, hub_environment, publishing, records
from tests.helpers.hub_stand_in import NAME, Hub, serving
from tests.helpers.submissions import forge, submission


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two results directories of different tasks."""
    folder = tmp_path_factory.mktemp("results")
    return {task: submission(folder / task, records(task)) for task in ("sst5", "cr")}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one commit. Its .gitignore would leave out files of a leaderboard."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git(folder, "config", "user.name", "Tester")
    git(folder, "config", "user.email", "tester@example.org")
    (folder / ".gitignore").write_text("runs/\n*.parquet\n")
    (folder / "README.md").write_text("ours\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "start")
    return folder


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def n_rows(folder: Path) -> int:
    return len((folder / "leaderboard.csv").read_text().splitlines()) - 1


def as_folder(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def merged(published: Path, own: Path, replace: bool) -> Changes:
    """The changes of `merge` into a folder, from which files of an earlier build are removed first."""
    names = [str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()]
    for name in names:
        if not name.startswith("runs/") and name != MARKER:
            (published / name).unlink()
    return merge(published, names, own, replace)


def test_a_commit_on_a_branch_and_nothing_else_is_touched(
    results: dict[str, Path], clone: Path, tmp_path: Path
):
    start = git(clone, "rev-parse", "HEAD")
    changes = publish_to_git(results["sst5"], clone, "leaderboard", replace=False, dry_run=False)
    assert (len(changes.added), changes.replaced) == (12, [])
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "rev-parse", "HEAD") == start
    assert git(clone, "worktree", "list", "--porcelain").count("worktree ") == 1
    published = checked_out(clone, tmp_path / "published")
    assert departures(published) == []
    assert (published / "README.md").read_text() == "ours\n"
    own = contents(build(Store(results["sst5"])))
    for name, content in own.items():
        expected = content.encode() if isinstance(content, str) else content
        assert (published / name).read_bytes() == expected
    again = publish_to_git(results["sst5"], clone, "leaderboard", replace=False, dry_run=False)
    assert (again.added, again.replaced, again.rows) == ([], [], [])
    assert git(clone, "rev-list", "--count", "leaderboard").strip() == "2"


@pytest.mark.slow
def test_two_processes_on_one_clone_lose_nothing(results: dict[str, Path], clone: Path, tmp_path: Path):
    """A `git` on the path lets the second publisher finish before the first one's branch moves."""
    code = "from momentum_bench.harness.cli.main import main; main()"
    second = f"'{sys.executable}' -c '{code}' leaderboard publish '{results['cr']}' --to '{clone}'"
    shim, real = tmp_path / "bin" / "git", shutil.which("git")
    shim.parent.mkdir()
    once = f"mkdir '{tmp_path}/once' 2>/dev/null && {second}"
    shim.write_text(f'#!/bin/sh\ncase "$*" in *update-ref*) {once};; esac\nexec \'{real}\' "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    ended(publishing(results["sst5"], "--to", clone, PYTHONPATH=str(SOURCES), PATH=path))
    subjects = git(clone, "log", "--format=%b", "leaderboard")
    assert (tmp_path / "once").is_dir()
    assert subjects.index(" sst5 ") < subjects.index(" cr ")  # newest first: cr was faster
    assert git(clone, "rev-list", "--count", "leaderboard").strip() == "3"
    published = checked_out(clone, tmp_path / "published")
    assert n_rows(published) == 4
    assert departures(published) == []


def test_a_dry_run_says_what_would_change_and_changes_nothing(results: dict[str, Path], clone: Path):
    words = ["leaderboard", "publish", str(results["sst5"]), "--to", str(clone), "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("+ ") and "sst5 sgd" in line for line in lines)
    assert "12 run(s) would be added, 0 replaced" in done.stderr
    assert git(clone, "branch", "--list", "leaderboard") == ""


def test_a_folder_in_a_clone(results: dict[str, Path], clone: Path, tmp_path: Path):
    (clone / "boards" / "mine").mkdir(parents=True)
    publish_to_git(results["cr"], clone / "boards" / "mine", "other", replace=False, dry_run=False)
    published = checked_out(clone, tmp_path / "published", "other")
    assert departures(published / "boards" / "mine") == []
    assert not (published / "runs").exists()


def test_a_branch_goes_on_from_the_later_commit(results: dict[str, Path], clone: Path, tmp_path: Path):
    publish_to_git(results["cr"], clone, "leaderboard", replace=False, dry_run=False)
    git(clone, "merge", "-q", "--no-ff", "-m", "merged", "leaderboard")
    publish_to_git(results["sst5"], clone, "leaderboard", replace=False, dry_run=False)
    assert n_rows(checked_out(clone, tmp_path / "published")) == 4
    (clone / "README.md").write_text("ours, changed\n")
    git(clone, "commit", "-q", "-am", "meanwhile")
    with pytest.raises(UserError, match="have diverged"):
        publish_to_git(results["sst5"], clone, "leaderboard", replace=False, dry_run=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: git(c, "checkout", "-q", "-b", "leaderboard"), "branch leaderboard is checked out"),
        (lambda c: git(c, "update-ref", "-d", "HEAD"), "has no commit yet"),
        (lambda c: (c / ".git").rename(c / "git"), "not a git repository"),
    ],
)
def test_a_clone_that_cannot_be_published_to(
    results: dict[str, Path], clone: Path, spoil: Callable[[Path], object], message: str
):
    spoil(clone)
    with pytest.raises(UserError, match=message):
        publish_to_git(results["cr"], clone, "leaderboard", replace=False, dry_run=False)


def test_ones_own_run_is_replaced_only_when_asked(results: dict[str, Path], tmp_path: Path):
    published, better = tmp_path / "published", tmp_path / "better"
    merged(published, results["cr"], replace=False)
    merged(published, results["sst5"], replace=False)
    before = (published / "leaderboard.csv").read_text().splitlines()
    submission(better, records("cr"))
    run_id = forge_loss(better)
    with pytest.raises(UserError, match=f"are published with another result, the first: {run_id}"):
        merged(published, better, replace=False)
    changes = merged(published, better, replace=True)
    assert (changes.added, changes.replaced) == ([], [run_id])
    assert Store(published).read(run_id) == Store(better).read(run_id)
    after = (published / "leaderboard.csv").read_text().splitlines()
    assert [line for line in after if ",sst5," in line or line.startswith("sst5")] == [
        line for line in before if ",sst5," in line or line.startswith("sst5")
    ]
    assert departures(published) == []


def forge_loss(folder: Path) -> str:
    """Change the test loss in one record. The tables stay the same, because they do not show it."""
    file = forge(folder, lambda fields: fields["test"].update(loss=0.125))
    return Path(file).parent.name


def test_a_failed_run_gives_way_and_other_costs_do_not_replace(tmp_path: Path, results: dict[str, Path]):
    published = tmp_path / "published"
    merged(published, results["cr"], replace=False)
    dearer = tmp_path / "dearer"
    submission(dearer, [r.model_copy(update={"environment": {"torch": "9"}}) for r in records("cr")])
    assert merged(published, dearer, replace=True).replaced == []
    run_id = Store(published).run_folders()[0]
    good = Store(published).read(run_id)
    assert good
    bad = RunRecord(spec=good.spec, metric="accuracy", status="failed", failure="made up")
    Store(published).write(bad)
    assert merged(published, results["cr"], replace=False).replaced == [run_id]
    assert Store(published).read(run_id) == good


def test_files_of_an_earlier_build_go_and_all_others_stay(
    tmp_path: Path, results: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    published = tmp_path / "published"
    merged(published, results["cr"], replace=False)
    theirs = {"plots/mine.svg", "tasks/notes.csv", "notes.txt"}
    before = {str(path.relative_to(published)) for path in published.rglob("*.*")}
    as_folder(dict.fromkeys(theirs, b"a user's"), published)

    def renamed(board: Leaderboard) -> dict[str, str | bytes]:
        """Other names of plots from the second board on, as another version might give them."""
        more = len(board.rows) > 2
        return {
            name.replace("plots/", "plots/new-" if more else "plots/"): c
            for name, c in contents(board).items()
        }

    monkeypatch.setattr("momentum_bench.leaderboards.publishing.merge.contents", renamed)
    changes = merged(published, results["sst5"], replace=False)
    assert set(changes.removed) == {name for name in before if name.startswith("plots/")} != set()
    assert not theirs & {*changes.files, *changes.removed}
    assert {name for name in changes.files if name.startswith("runs/")} == {
        f"runs/{run_id}/record.json" for run_id in changes.added
    }


@pytest.mark.parametrize("name", ["index.html", "tasks/cr.csv"])
def test_files_that_no_leaderboard_wrote_are_not_overwritten(
    results: dict[str, Path], clone: Path, tmp_path: Path, name: str
):
    as_folder({name: b"a user's"}, clone)
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "a page of my own")
    with pytest.raises(UserError, match=f"{name} is there and does not belong to a leaderboard"):
        publish_to_git(results["cr"], clone, "leaderboard", replace=False, dry_run=False)
    (clone / "board").mkdir()
    publish_to_git(results["cr"], clone / "board", "leaderboard", replace=False, dry_run=False)
    assert git(clone, "show", f"leaderboard:{name}") == "a user's"


def test_what_does_not_pass_the_check_is_not_published(tmp_path: Path, results: dict[str, Path]):
    mine = submission(tmp_path / "mine", records("cr")[:-1])
    with pytest.raises(UserError, match=r"is not published; 1 departure.*\n.*no run of seed 42"):
        check_own(mine)
    with pytest.raises(UserError, match="holds no momentum-bench results"):
        check_own(tmp_path)
    published = tmp_path / "published"
    merged(published, results["cr"], replace=False)
    forge(published, lambda fields: fields["test"].update(metric=0.99))
    with pytest.raises(UserError, match=r"would not pass the check; .*\n.*test.metric 0.99"):
        merged(published, results["sst5"], replace=False)
    (published / "momentum-bench.json").write_text('{"protocol_version": 99}')
    with pytest.raises(UserError, match="protocol version 99"):
        merged(published, results["sst5"], replace=False)


@pytest.mark.parametrize("target", ["hf://datasets/board", "hf://models/a/b", "hf://datasets/a/b/c", "hf://"])
def test_an_address_that_is_not_a_dataset(target: str):
    with pytest.raises(UserError, match="expected hf://datasets/USER/NAME"):
        repository(target)
    assert repository("hf://datasets/some-body/my.board") == "some-body/my.board"


def test_two_processes_on_the_hub_lose_nothing(results: dict[str, Path], tmp_path: Path):
    """The second publisher commits after the first reads and before it writes, so the hub answers 412."""
    hub, home, target = Hub(), tmp_path / "home", f"hf://datasets/{NAME}"
    with serving(hub) as address:
        environment = hub_environment(address, home)
        hub.before_commit = lambda: ended(publishing(results["cr"], "--to", target, **environment))
        out, err = ended(publishing(results["sst5"], "--to", target, **environment))
    assert (hub.refused, len(hub.commits)) == (1, 3)
    published = as_folder(hub.files, tmp_path / "published")
    assert n_rows(published) == 4
    assert departures(published) == []
    card = (published / "README.md").read_text()
    assert card.startswith("---\n")
    assert "data_files: leaderboard.csv" in card
    assert hub.tokens == {f"Bearer {TOKEN}"}
    written = [p.read_bytes() for folder in (home, published) for p in folder.rglob("*") if p.is_file()]
    assert not any(TOKEN.encode() in content for content in (*written, out.encode(), err.encode()))


def test_a_busy_hub_is_asked_again(results: dict[str, Path], tmp_path: Path):
    hub = Hub()
    hub.n_limited = 2
    with serving(hub) as address:
        to = f"hf://datasets/{NAME}"
        _, err = ended(publishing(results["cr"], "--to", to, **hub_environment(address, tmp_path)))
    assert len(hub.commits) == 2
    assert err.count("the hub is busy (status 429)") == 2


def test_a_hub_that_refuses_or_is_not_there(results: dict[str, Path], tmp_path: Path):
    hub = Hub()
    with serving(hub) as address:
        environment = hub_environment(address, tmp_path)
        process = publishing(results["cr"], "--to", "hf://datasets/no/such", **environment)
        _, err = process.communicate()
        assert process.returncode == 2
        assert "hf repos create no/such --type dataset" in err
        process = publishing(
            results["cr"], "--to", f"hf://datasets/{NAME}", **environment | {"HF_HUB_OFFLINE": "1"}
        )
        _, err = process.communicate()
        assert process.returncode == 2
        assert "offline" in err.lower()
    assert "Traceback" not in err
    assert len(hub.commits) == 1
