"""What other programs leave in a results directory is ignored by all commands alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from momentum_bench.harness.records.files import is_litter
from momentum_bench.harness.records.noise_floor import noise_floors
from momentum_bench.harness.records.schema import Plan
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.printable import file_stem
from tests.helpers.clones import checked_out, git, hub_environment, publishing, records
from tests.helpers.command_line import run_command
from tests.helpers.hub_stand_in import NAME, Hub, serving
from tests.helpers.litter import CONFLICTS, FILES, FOLDERS, leave_litter
from tests.helpers.submissions import specs, submission, whole_record


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A results directory as a sweep leaves it."""
    folder = submission(tmp_path / "clean", [whole_record(spec) for spec in specs()])
    planned = tuple(specs())
    Store(folder).keep_plan(Plan(specs=planned, work=(1.0,) * len(planned)))
    return folder


def test_every_name_is_known():
    names = [*FOLDERS, *FILES, *(p.format(stem="sst2", suffix=".csv") for p in CONFLICTS)]
    names += ["desktop.ini:Zone.Identifier", "notes.txt~", "x_conflict-20180101-120000.csv"]
    assert all(map(is_litter, names))


def test_no_name_of_ours_is_litter():
    ours = [
        "record.json",
        "lock",
        "momentum-bench.json",
        "evaluations.jsonl",
        "0123456789abcdef",
        "index.html",
    ]
    ours += [f"{file_stem(name)}.csv" for name in ("sst2", "a b", ".hidden", "@x", "~", "conflict")]
    assert not any(map(is_litter, ours))


@pytest.mark.parametrize(
    "words",
    [
        ("status", "DIR"),
        ("leaderboard", "build", "DIR"),
        ("leaderboard", "build", "DIR", "--json"),
        ("leaderboard", "check", "DIR"),
        ("reproduce", "0", "DIR"),
        ("noise-floor", "DIR", "--run", "0"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_command_says_the_same_with_litter_and_without(clean: Path, words: tuple[str, ...]):
    typed = [str(clean) if word == "DIR" else word for word in words]
    before = run_command(*typed)
    left = leave_litter(clean)
    assert len(left) > 100
    after = run_command(*typed)
    assert (after.returncode, after.stdout, after.stderr) == (before.returncode, before.stdout, before.stderr)
    assert (
        sorted(str(p.relative_to(clean)) for p in clean.rglob("*") if str(p.relative_to(clean)) in left)
        == left
    )


def test_a_folder_in_runs_that_is_named_by_no_id_is_no_run(clean: Path):
    (clean / "runs" / "notes").mkdir()
    (clean / "runs" / "notes" / "record.json").write_text("mine")
    assert run_command("leaderboard", "check", clean).returncode == 0
    done = run_command("leaderboard", "build", clean)
    assert (done.returncode, done.stderr) == (0, "")


def test_noise_floors_with_a_conflict_copy_count_once(clean: Path):
    folder = clean / "noise_floor"
    folder.mkdir()
    (folder / "0123456789abcdef (conflicted copy).json").write_text("{}")
    assert noise_floors(clean) == []


def test_litter_in_the_results_and_in_a_clone_is_not_published(clean: Path, tmp_path: Path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    git(clone, "config", "user.name", "Tester")
    git(clone, "config", "user.email", "tester@example.org")
    (clone / "README.md").write_text("ours\n")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "start")
    assert run_command("leaderboard", "publish", clean, "--to", clone).returncode == 0
    git(clone, "checkout", "-q", "leaderboard")
    for name in ("@eaDir", ".ipynb_checkpoints", ".stfolder"):
        (clone / "runs" / name).mkdir()
        (clone / "runs" / name / "record.json").write_text("litter")
    git(clone, "add", "-f", ".")
    git(clone, "commit", "-q", "-m", "with litter")
    git(clone, "checkout", "-q", "--detach")
    more = submission(tmp_path / "more", records("cr"))
    leave_litter(more)
    done = run_command("leaderboard", "publish", more, "--to", clone)
    assert done.returncode == 0, done.stderr
    published = checked_out(clone, tmp_path / "published")
    assert len(Store(published).records()) == 2 * len(specs())
    names = {path.name for path in (published / "runs").iterdir()}
    assert {name for name in names if is_litter(name)} == {"@eaDir", ".ipynb_checkpoints", ".stfolder"}
    assert run_command("leaderboard", "check", published).returncode == 0


def test_litter_on_the_hub_is_neither_downloaded_nor_removed(clean: Path, tmp_path: Path):
    hub, litter = Hub(), "runs/@eaDir/record.json"
    hub.commits[0][1][litter] = b"litter"
    with serving(hub) as address:
        environment = hub_environment(address, tmp_path / "home")
        process = publishing(clean, "--to", f"hf://datasets/{NAME}", **environment)
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert hub.files[litter] == b"litter"
    assert "leaderboard.csv" in hub.files
