"""Clones and folders from strangers: no link in them is followed, and none of their programs runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.data.export import write_texts
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.printable import file_stem
from momentum_bench.leaderboards.publishing import git_target
from momentum_bench.leaderboards.publishing.git_target import publish_to_git
from momentum_bench.leaderboards.publishing.merge import Changes
from momentum_bench.leaderboards.rendering.files import contents, write
from tests.helpers.clones import checked_out, git, hub_environment, publishing, records
from tests.helpers.hub_stand_in import NAME, Hub, serving
from tests.helpers.submissions import specs, submission, whole_record

OWN_TASK, OTHER_TASK = "sst5", "cr"
RUN_ID = whole_record(specs()[0].model_copy(update={"task": OWN_TASK})).spec.run_id


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, by path: what it is, and a digest of its content. Links are not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                content = f"link to {os.readlink(path)}"
            elif path.is_dir():
                content = "folder"
            else:
                content = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            found[str(path.relative_to(folder))] = content
    return found


class Opened:
    """The files that this process opens while it is watched. An audit hook cannot be taken away again.

    Two ways of opening are left out: with `O_NOFOLLOW` a link ends in an error, and `plain_content`, which
    alone opens with `O_NONBLOCK`, reads up to a bound, and no text of what it reads is shown.
    """

    def __init__(self) -> None:
        self.paths: list[str] | None = None
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or self.paths is None or not isinstance(arguments[0], str | bytes | Path):
            return
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if not flags & os.O_NOFOLLOW and (writes or not flags & os.O_NONBLOCK):
            self.paths.append(os.path.realpath(os.fsdecode(arguments[0])))

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        self.paths = found = []
        try:
            yield found
        finally:
            self.paths = None


OPENED = Opened()


@dataclass(frozen=True)
class Victim:
    """A person with a home, and the folder where the command is typed. Neither may change."""

    home: Path
    work: Path

    def types(self, *words: object) -> Result:
        """The result of a command that is typed in the folder `work`."""
        with OPENED.watched() as paths:
            done = CliRunner().invoke(app, [str(word) for word in words])
        mine = {
            str(path) for folder in (self.home, self.work) for path in folder.rglob("*") if path.is_file()
        }
        assert mine.isdisjoint(paths), f"{words}: opened {sorted(mine & set(paths))}"
        return done

    def listing(self) -> list[dict[str, str]]:
        return [listing(self.home), listing(self.work)]


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Victim:
    home, work = tmp_path / "home", tmp_path / "work"
    (home / "folder").mkdir(parents=True)
    work.mkdir()
    (home / ".bashrc").write_text("alias ll='ls -l'\n")
    (home / "curves.svg").write_text("mine\n")
    (home / ".momentum-bench.12345678.tmp").write_text("mine\n")
    (work / "accounts.csv").write_text("mine\n")
    (work / f"{OWN_TASK}.csv").write_text("mine\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    monkeypatch.chdir(work)
    return Victim(home, work)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("results")
    return {task: submission(folder / task, records(task)) for task in (OWN_TASK, OTHER_TASK)}


def repository(folder: Path) -> Path:
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    git(folder, "config", "user.name", "Tester")
    git(folder, "config", "user.email", "tester@example.org")
    (folder / "README.md").write_text("ours\n")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all", "--force", ".")
    git(folder, "commit", "-q", "--no-verify", "-m", "made")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return repository(tmp_path / "clone")


LINKS = {
    "leaderboard.csv": "HOME/.bashrc",
    "index.html": "HOME/.bashrc",
    "momentum-bench.json": "HOME/.bashrc",
    "tasks": "/proc/self/cwd",
    f"tasks/{OWN_TASK}.csv": "HOME/.bashrc",
    "tasks/elsewhere.csv": "HOME/.bashrc",
    "plots": "HOME",
    "runs": "HOME",
    f"runs/{RUN_ID}": "HOME/folder",
    f"runs/{RUN_ID}/record.json": "HOME/.bashrc",
    "board": "HOME/folder",
}


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["publish", "dry-run"])
@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_a_clone_is_refused_and_not_followed(
    name: str, options: list[str], clone: Path, victim: Victim, results: dict[str, Path]
):
    link = clone / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(LINKS[name].replace("HOME", str(victim.home)))
    commit(clone)
    to = clone
    if name == "board":  # it is a folder now, but a link in the commit
        link.unlink()
        to = link
        to.mkdir()
    before, of_victim = listing(clone), victim.listing()
    done = victim.types("leaderboard", "publish", results[OWN_TASK], "--to", to, *options)
    assert victim.listing() == of_victim
    assert listing(clone) == before
    assert done.exit_code == 2, done.stderr
    assert f"error: {name} is a symbolic link in commit " in done.stderr
    assert "git rm" in done.stderr


IN_RESULTS = {
    **{name: target for name, target in LINKS.items() if name != "board"},
    f"runs/{RUN_ID}/evaluations.jsonl": "HOME/.bashrc",
    f"runs/{RUN_ID}/attempt.json": "HOME/.bashrc",
    "plans/0123456789abcdef.json": "HOME/.bashrc",
    "designs/0123456789abcdef.json": "HOME/.bashrc",
    "designs": "HOME/folder",
    "noise_floor/0123456789abcdef.json": "HOME/.bashrc",
    "records.jsonl.xz": "HOME/.bashrc",
    "momentum-bench.lock": "HOME/.bashrc",
}
"""What a stranger may put in the place of a file of a results directory."""


@pytest.mark.parametrize("name", IN_RESULTS)
def test_no_command_reads_or_writes_through_a_link_in_a_strangers_results(
    name: str, victim: Victim, results: dict[str, Path], tmp_path: Path
):
    theirs = shutil.copytree(results[OWN_TASK], tmp_path / "theirs")
    link = theirs / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
    link.symlink_to(IN_RESULTS[name].replace("HOME", str(victim.home)))
    of_victim = victim.listing()
    row = build(Store(results[OWN_TASK])).rows[0].row_id
    for words in (
        ("leaderboard", "check", theirs),
        ("leaderboard", "build", theirs),
        ("leaderboard", "build", theirs, "--out", theirs),
        ("leaderboard", "build", theirs, "--out", tmp_path / "out"),
        ("leaderboard", "publish", theirs, "--to", tmp_path / "nowhere", "--dry-run"),
        ("status", theirs),
        ("reproduce", theirs, row),
        ("reproduce", theirs, row, "--run", "--data-dir", tmp_path),
        ("run", "--resume-from", theirs, "--output-dir", tmp_path / "mine", "--dry-run"),
        ("run", "--task", "sst5", "--data-dir", tmp_path, "--output-dir", theirs),
    ):
        done = victim.types(*words)
        assert done.exit_code in (0, 1, 2), (words, done.exception)
        assert isinstance(done.exception, SystemExit | None), (words, done.exception)
        assert "alias" not in done.output
        assert victim.listing() == of_victim, words


def in_the_index(clone: Path, mode: str, name: str, object_id: str) -> None:
    git(clone, "update-index", "--add", "--cacheinfo", f"{mode},{object_id},{name}")
    git(clone, "commit", "-q", "-m", "odd")


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("runs", "160000", "runs is a submodule"),
        ("tasks", "160000", "tasks is a submodule"),
        ("leaderboard.csv", "160000", "leaderboard.csv is a submodule"),
        (f"runs/{RUN_ID}", "160000", f"runs/{RUN_ID} is a submodule"),
        ("tasks", "100644", "tasks is a file"),
        ("leaderboard.csv/x", "100644", "leaderboard.csv is a folder"),
        ("plots/x.svg/y", "100644", "plots/x.svg is a folder"),
        ("runs/git-/record.json", "100644", "runs/git- is a folder"),
    ],
)
def test_an_entry_that_is_not_the_file_or_folder_of_a_leaderboard(
    name: str, mode: str, message: str, clone: Path, results: dict[str, Path]
):
    what = "HEAD" if mode == "160000" else "HEAD:README.md"
    in_the_index(clone, mode, name, git(clone, "rev-parse", what).strip())
    before = listing(clone)
    with pytest.raises(UserError, match=f"^{re.escape(message)} in commit .*nothing was published"):
        publish_to_git(results[OWN_TASK], clone, "leaderboard", replace=False, dry_run=False)
    assert listing(clone) == before


def test_a_link_on_the_way_to_a_folder_in_a_clone(clone: Path, tmp_path: Path, results: dict[str, Path]):
    other = repository(tmp_path / "other")
    (clone / "board").symlink_to(other)
    before = listing(other)
    with pytest.raises(UserError, match=r"board is a symbolic link in the clone .*: --to .*/other$"):
        publish_to_git(results[OWN_TASK], clone / "board", "leaderboard", replace=False, dry_run=False)
    assert listing(other) == before


def program(path: Path, trace: Path) -> Path:
    """A program that leaves a trace when it runs."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    path.chmod(0o755)
    return path


HOOKS = (
    "post-checkout",
    "pre-commit",
    "post-commit",
    "commit-msg",
    "post-index-change",
    "reference-transaction",
)


@pytest.fixture
def armed(clone: Path, tmp_path: Path) -> Path:
    """A clone that starts a program from every hook, attribute and setting that git knows for it."""
    evil = program(tmp_path / "evil", tmp_path / "trace")
    (clone / ".gitattributes").write_text("* filter=evil diff=evil text=auto eol=crlf\n")
    commit(clone)
    for name in HOOKS:
        program(clone / ".git" / "hooks" / name, tmp_path / "trace")
    settings = {
        "core.fsmonitor": evil,
        "core.autocrlf": "true",
        "core.pager": evil,
        "core.editor": evil,
        "core.splitIndex": "true",
        "commit.gpgSign": "true",
        "gpg.program": evil,
        "filter.evil.clean": evil,
        "filter.evil.smudge": evil,
        "filter.evil.required": "true",
        "diff.evil.textconv": evil,
        "alias.hash-object": f"!{evil}",
        "pager.cat-file": evil,
        "i18n.commitEncoding": "latin1",
    }
    for name, value in settings.items():
        git(clone, "config", name, str(value))
    (tmp_path / "trace").unlink(missing_ok=True)
    return clone


def test_a_dry_run_starts_no_program_and_writes_nothing(
    armed: Path, victim: Victim, tmp_path: Path, results: dict[str, Path]
):
    before, of_victim = listing(armed), victim.listing()
    done = victim.types("leaderboard", "publish", results[OWN_TASK], "--to", armed, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "12 run(s) would be added" in done.stderr
    assert not (tmp_path / "trace").exists()
    assert listing(armed) == before
    assert victim.listing() == of_victim


def test_publishing_starts_no_program_and_the_bytes_are_ours(
    armed: Path, victim: Victim, tmp_path: Path, results: dict[str, Path]
):
    before, of_victim = listing(armed), victim.listing()
    for task in (OTHER_TASK, OWN_TASK):  # the second time there is a branch
        done = victim.types("leaderboard", "publish", results[task], "--to", armed)
        assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "trace").exists()
    assert victim.listing() == of_victim
    written = listing(armed).items() - before.items()
    assert {name.split("/")[1] for name, _ in written} <= {"objects", "refs", "logs"}
    stores = [Store(results[task]) for task in (OTHER_TASK, OWN_TASK)]
    for name, content in contents(build(*stores)).items():
        shown = subprocess.run(
            ["git", "-C", str(armed), "cat-file", "blob", f"leaderboard:{name}"],
            capture_output=True,
            check=True,
        )
        assert shown.stdout == (content.encode() if isinstance(content, str) else content), name
    assert "encoding" not in git(armed, "cat-file", "commit", "leaderboard").split("\n\n")[0]


def test_a_partial_clone_does_not_fetch_with_a_program_of_its_own(
    clone: Path, victim: Victim, tmp_path: Path, results: dict[str, Path]
):
    publish_to_git(results[OTHER_TASK], clone, "leaderboard", replace=False, dry_run=False)
    git(clone, "config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    options = ["-q", "--filter=blob:none", "--no-checkout", "-b", "leaderboard"]
    subprocess.run(["git", "clone", *options, f"file://{clone}", str(partial)], check=True)
    git(partial, "update-ref", "refs/heads/other", "leaderboard")
    git(partial, "symbolic-ref", "HEAD", "refs/heads/other")
    git(partial, "config", "remote.origin.uploadpack", str(program(tmp_path / "evil", tmp_path / "trace")))
    before = listing(partial)
    done = victim.types("leaderboard", "publish", results[OWN_TASK], "--to", partial)
    assert not (tmp_path / "trace").exists()
    assert listing(partial) == before
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert "make a whole clone" in done.stderr


def link_log(clone: Path, home: Path) -> None:
    log = clone / ".git" / "logs" / "refs" / "heads" / "leaderboard"
    log.symlink_to(home / ".bashrc")


def link_heads(clone: Path, home: Path) -> None:
    heads = clone / ".git" / "refs" / "heads"
    shutil.move(heads, home / "heads")
    heads.symlink_to(home / "heads")


def link_objects(clone: Path, home: Path) -> None:
    for number in range(256):
        path = clone / ".git" / "objects" / f"{number:02x}"
        if not path.exists():
            path.symlink_to(home / "folder")


def link_repository(clone: Path, home: Path) -> None:
    shutil.move(clone / ".git", home / "repository")
    (clone / ".git").symlink_to(home / "repository")


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["publish", "dry-run"])
@pytest.mark.parametrize("link", [link_log, link_heads, link_objects, link_repository])
def test_a_link_where_git_itself_writes(
    link: Callable[[Path, Path], None],
    options: list[str],
    clone: Path,
    victim: Victim,
    results: dict[str, Path],
):
    link(clone, victim.home)
    of_victim = victim.listing()
    done = victim.types("leaderboard", "publish", results[OWN_TASK], "--to", clone, *options)
    assert victim.listing() == of_victim
    assert done.exit_code == 2, done.stderr
    assert "is a symbolic link, through which git would write elsewhere" in done.stderr


def test_a_branch_that_is_an_alias_of_another(clone: Path, results: dict[str, Path]):
    git(clone, "symbolic-ref", "refs/heads/leaderboard", "refs/heads/main")
    start = git(clone, "rev-parse", "main")
    with pytest.raises(UserError, match=r"branch leaderboard in .* is an alias of refs/heads/main"):
        publish_to_git(results[OWN_TASK], clone, "leaderboard", replace=False, dry_run=False)
    assert git(clone, "rev-parse", "main") == start


def test_a_tag_with_the_name_of_a_branch_is_no_branch(clone: Path, results: dict[str, Path]):
    git(clone, "update-ref", "refs/tags/refs/heads/leaderboard", "HEAD")
    changes = publish_to_git(results[OWN_TASK], clone, "leaderboard", replace=False, dry_run=False)
    assert len(changes.added) == 12


def test_an_object_that_is_replaced_is_read_as_it_was_committed(
    clone: Path, tmp_path: Path, results: dict[str, Path]
):
    publish_to_git(results[OTHER_TASK], clone, "leaderboard", replace=False, dry_run=False)
    (name,) = git(clone, "ls-tree", "-r", "--name-only", "leaderboard", "runs").splitlines()[:1]
    git(clone, "replace", f"leaderboard:{name}", "HEAD:README.md")
    publish_to_git(results[OWN_TASK], clone, "leaderboard", replace=False, dry_run=False)
    assert departures(checked_out(clone, tmp_path / "published")) == []


def test_a_commit_of_more_rows_than_a_command_line_holds(
    clone: Path, results: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    rows = [f"+ {number} {'long' * 35}" for number in range(2000)]

    def many(*words: object, **named: object) -> Changes:
        return replace(merge(*words, **named), rows=rows)

    merge = git_target.merge
    monkeypatch.setattr(git_target, "merge", many)
    publish_to_git(results[OWN_TASK], clone, "leaderboard", replace=False, dry_run=False)
    assert git(clone, "log", "-1", "--format=%b", "leaderboard").strip().splitlines() == rows


ODD_NAMES = (
    "--upload-pack=touch x",
    "$(touch x)",
    "../../../up",
    "...",
    "-rf",
    "a\nb\tc",
    "`touch x`\x1b[31m",
)


def test_names_out_of_records_are_words_and_neither_options_nor_paths(
    clone: Path, victim: Victim, tmp_path: Path
):
    named = [
        whole_record(spec.model_copy(update={"task": name, "model": name}))
        for name in ODD_NAMES
        for spec in specs()
    ]
    own = submission(tmp_path / "own", named)
    of_victim = victim.listing()
    done = victim.types("leaderboard", "publish", own, "--to", clone)
    assert done.exit_code == 0, done.stderr
    assert victim.listing() == of_victim
    names = git(clone, "ls-tree", "-r", "-z", "--name-only", "leaderboard").split("\0")[:-1]
    word = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
    assert [name for name in names if not re.fullmatch(f"{word}(/{word})*", name)] == []
    message = git(clone, "log", "-1", "--format=%B", "leaderboard")
    assert len(message.strip().splitlines()) == 2 + 2 * len(ODD_NAMES)
    assert all(line.isprintable() for line in message.splitlines())


def test_what_to_type_next_is_quoted(tmp_path: Path, victim: Victim, results: dict[str, Path]):
    clone = repository(tmp_path / "a clone; touch x")
    done = victim.types("leaderboard", "publish", results[OWN_TASK], "--to", clone)
    assert f"git -C '{clone}' push origin leaderboard" in done.stderr


@pytest.mark.parametrize(
    "name", ["runs/../../../up/record.json", "runs/a name/record.json", "runs/x/y/record.json"]
)
def test_a_name_on_the_hub_that_is_not_the_path_of_a_record(
    name: str, tmp_path: Path, results: dict[str, Path]
):
    hub = Hub()
    hub.commits[0][1][name] = b"{}"
    with serving(hub) as address:
        environment = hub_environment(address, tmp_path / "home")
        process = publishing(results[OWN_TASK], "--to", f"hf://datasets/{NAME}", **environment)
        _, err = process.communicate()
    assert process.returncode == 2
    assert f"{name} is not the path of a record" in err
    assert len(hub.commits) == 1


@pytest.mark.parametrize("folder", ["tasks", "plots"])
def test_tables_are_not_written_through_a_link(folder: str, victim: Victim, results: dict[str, Path]):
    board, out = build(Store(results[OWN_TASK])), victim.home.parent / "out"
    out.mkdir()
    (out / folder).symlink_to(victim.work)
    before = listing(out), victim.listing()
    with pytest.raises(UserError, match=f"out/{folder} is a symbolic link, and files would be written"):
        write(board, out)
    assert (listing(out), victim.listing()) == before


def test_an_output_folder_may_be_a_link_itself(tmp_path: Path, results: dict[str, Path]):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(build(Store(results[OWN_TASK])), tmp_path / "out")
    assert (tmp_path / "disk" / "tasks" / f"{OWN_TASK}.csv").is_file()


def test_split_files_are_not_written_through_a_link(tmp_path: Path, victim: Victim):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sst2").symlink_to(victim.work)
    before = victim.listing()
    with pytest.raises(UserError, match="sst2 is a symbolic link"):
        write_texts(tmp_path / "out", {"sst2/16-13/train.jsonl": "{}\n"})
    assert victim.listing() == before


def test_leftovers_are_not_removed_through_a_link(tmp_path: Path, victim: Victim):
    store = Store(tmp_path / "results")
    store.open()
    (tmp_path / "results" / "plans").symlink_to(victim.home)
    (tmp_path / "results" / ".momentum-bench.abcdefgh.tmp").touch()
    before = victim.listing()
    with store.alone():
        assert not (tmp_path / "results" / ".momentum-bench.abcdefgh.tmp").exists()
    assert victim.listing() == before


def test_a_file_name_is_no_option():
    assert file_stem("...").startswith("name-")
    assert file_stem("--") != file_stem("...")
