"""Publishing into a clone of a git repository: a commit on a branch, ready for a pull request.

The clone's own working tree is not touched: the commit is made in a worktree of its own, and the branch
moves by compare-and-swap, so that of two publishers at once the later one starts anew on the other's commit.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import UserError
from leaderboards.publishing import ATTEMPTS, Changes, merge

FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")
"""A hook's variables, which would point git at another repository than the one that was named."""


def publish_to_git(own: Path, target: Path, branch: str, replace: bool, dry_run: bool) -> Changes:
    """Commit a results directory's runs and the tables rebuilt with them.

    Args:
        own: a results directory that has passed `publishing.check_own`.
        target: a clone, or a folder in one: the leaderboard lies there.
        branch: is made from what is checked out, or continued.

    Raises:
        UserError: no clone, a branch that cannot be continued, or git refuses; see also `merge`.
    """
    place = _git(target, "rev-parse", "--show-prefix").stdout.strip()
    if _git(target, "rev-parse", "--is-inside-work-tree").stdout.strip() != "true":
        raise UserError(f"{target} has no working tree: --to wants a clone, not a bare repository")
    reference = f"refs/heads/{branch}"
    _git(target, "check-ref-format", reference)
    for _ in range(ATTEMPTS):
        if f"branch {reference}\n" in _git(target, "worktree", "list", "--porcelain").stdout:
            raise UserError(
                f"branch {branch} is checked out in {target}: check out another, or give --branch"
            )
        tip = _commit(target, reference)
        with _worktree(target, _start(target, branch, tip)) as folder:
            folder = folder / place
            folder.mkdir(parents=True, exist_ok=True)
            changes = merge(folder, own, replace)
            if dry_run or not (changes.added or changes.replaced):
                return changes
            # --force: what the repository ignores elsewhere (runs/, *.parquet) belongs to the leaderboard
            _git(folder, "add", "--all", "--force", ".")
            _git(folder, "commit", "--quiet", "-m", "\n".join([changes.title, "", *changes.rows]))
            new = _git(folder, "rev-parse", "HEAD").stdout.strip()
        # an empty old value: the branch must not be there yet
        moved = _git(target, "update-ref", reference, new, tip or "", check=False)
        if moved.returncode == 0:
            return changes
        if _commit(target, reference) == tip:  # nobody came in between: git has another reason
            raise UserError(f"branch {branch} cannot be moved: {moved.stderr.strip()}")
    raise UserError(f"{ATTEMPTS} times another commit came in between on branch {branch}: try again later")


def _start(target: Path, branch: str, tip: str | None) -> str:
    """The commit to build on: the later one of the branch's and the one that is checked out."""
    head = _commit(target, "HEAD")
    if head is None:
        raise UserError(f"{target} has no commit yet: make one first (git commit --allow-empty -m start)")
    if tip is None or _is_ancestor(target, tip, head):
        return head
    if _is_ancestor(target, head, tip):
        return tip
    raise UserError(
        f"branch {branch} and what is checked out in {target} have gone apart: merge them, delete the branch "
        f"(git branch -D {branch}) if its pull request is done, or give another --branch"
    )


def _commit(target: Path, name: str) -> str | None:
    found = _git(target, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
    return found.stdout.strip() or None


def _is_ancestor(target: Path, older: str, newer: str) -> bool:
    return _git(target, "merge-base", "--is-ancestor", older, newer, check=False).returncode == 0


@contextmanager
def _worktree(target: Path, commit: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="momentum-bench-") as scratch:
        folder = Path(scratch, Path(scratch).name)  # git knows a worktree by its folder's name
        _git(target, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git(target, "worktree", "remove", "--force", str(folder))


def _git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, env=environment, check=False
        )
    except OSError as error:
        raise UserError(f"git cannot be started: {error.strerror}") from error
    if check and done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise UserError(f"git {words[0]} in {folder}: {said}")
    return done
