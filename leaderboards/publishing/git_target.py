"""Publishing into a clone of a git repository: a commit on a branch, ready for a pull request.

The clone's working tree is neither read nor written. The leaderboard is built in a temporary folder, from
what git has stored, and the commit has exactly the files of that folder, byte for byte. The branch moves by
compare-and-swap: if two publishers commit at once, the later one starts again on the commit of the other.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.files import is_litter
from momentum_bench.harness.records.schema import RUN_ID
from momentum_bench.harness.records.store import DESIGNS, MARKER
from momentum_bench.leaderboards.archive import LARGEST_TOTAL
from momentum_bench.leaderboards.checking.folder import LARGEST_BYTES
from momentum_bench.leaderboards.printable import short_line
from momentum_bench.leaderboards.publishing.git_repository import (
    FILE,
    FOLDER,
    CommittedFolder,
    check_no_links,
    git,
    objects_of,
    text,
)
from momentum_bench.leaderboards.publishing.merge import (
    ATTEMPTS,
    BUILT_FILES,
    BUILT_FOLDERS,
    DESIGN_FILE,
    Changes,
    merge,
    place_of,
)


def publish_to_git(own: Path, target: Path, branch: str, replace: bool, dry_run: bool) -> Changes:
    """Commit a results directory's runs and the tables rebuilt with them.

    Args:
        own: a results directory that has passed `merge.check_own`.
        target: a clone, or a folder in one; the leaderboard is there.
        branch: is continued, or made from what is checked out.
        replace: also replace published runs whose result differs.
        dry_run: nothing is written, not even objects that no branch has.

    Raises:
        UserError: the target is not a clone, has links where a leaderboard has files, or has a branch that
            cannot be continued; or git refuses. See also `merge`.
    """
    place = os.fsdecode(git(target, "rev-parse", "--show-prefix").stdout.removesuffix(b"\n"))
    if text(git(target, "rev-parse", "--is-inside-work-tree").stdout) != "true":
        raise UserError(f"{target} has no working tree: --to needs a clone, not a bare repository")
    check_no_links(target)
    reference = f"refs/heads/{branch}"
    git(target, "check-ref-format", reference)
    for _ in range(ATTEMPTS):
        tip = _tip(target, branch, reference)
        start = _start(target, branch, tip)
        with TemporaryDirectory(prefix="momentum-bench-") as scratch, objects_of(target) as objects:
            published = CommittedFolder(objects, start, place, target)
            folder = Path(scratch, "leaderboard")
            _lay_out(published, folder)
            changes = merge(folder, _names(published), own, replace)
            for name in (*changes.files, *changes.removed):
                published.file(name)  # refuses an entry that is not a file
            if dry_run or not (changes.added or changes.replaced):
                return changes
            new = _committed(target, start, place, folder, changes, Path(scratch, "index"))
        # with an empty old value, git refuses if the branch is there
        moved = git(target, "update-ref", "--no-deref", reference, new, tip or "", check=False)
        if moved.returncode == 0:
            return changes
        if _tip(target, branch, reference) == tip:  # nobody else committed, so git has another reason
            raise UserError(f"branch {branch} cannot be moved: {text(moved.stderr)}")
    raise UserError(
        f"another publisher committed to branch {branch} {ATTEMPTS} times in a row: try again later"
    )


def _tip(target: Path, branch: str, reference: str) -> str | None:
    """The branch's commit, or None if there is no such branch.

    Raises:
        UserError: the branch is checked out, so that moving it would make its working tree differ from it; or
            it is an alias of another branch.
    """
    if f"branch {reference}\n" in text(git(target, "worktree", "list", "--porcelain").stdout) + "\n":
        raise UserError(f"branch {branch} is checked out in {target}: check out another, or give --branch")
    if other := text(git(target, "symbolic-ref", "--quiet", reference, check=False).stdout):
        raise UserError(f"branch {branch} in {target} is an alias of {other}: give another --branch")
    found = git(
        target, "show-ref", "--verify", "--hash", reference, check=False
    )  # and not a tag of that name
    return text(found.stdout) or None


def _start(target: Path, branch: str, tip: str | None) -> str:
    """The commit to build on: the branch's or the checked-out one, whichever is later.

    Raises:
        UserError: there is no commit, or neither of the two is an ancestor of the other.
    """
    found = git(target, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False)
    head = text(found.stdout)
    if not head:
        raise UserError(f"{target} has no commit yet: make one first (git commit --allow-empty -m start)")
    if tip is None or _is_ancestor(target, tip, head):
        return head
    if _is_ancestor(target, head, tip):
        return tip
    raise UserError(
        f"branch {branch} and what is checked out in {target} have diverged: merge them, delete the branch "
        f"(git branch -D {branch}) if its pull request is done, or give another --branch"
    )


def _is_ancestor(target: Path, older: str, newer: str) -> bool:
    return git(target, "merge-base", "--is-ancestor", older, newer, check=False).returncode == 0


def _lay_out(published: CommittedFolder, folder: Path) -> None:
    """Write the marker, records and designs of a published leaderboard to a new folder, and nothing else.

    Raises:
        UserError: one of them is not a plain file, or they are too large.
    """
    folder.mkdir()
    if (marker := published.content(MARKER, LARGEST_BYTES)) is not None:
        (folder / MARKER).write_bytes(marker)
    left = LARGEST_TOTAL
    for name, entry in published.entries("runs").items():
        if entry.kind == FILE or is_litter(name):
            continue
        if entry.kind != FOLDER or not RUN_ID.fullmatch(name):
            raise published.refused(f"runs/{name}", entry, "only folders that are named by a run's id")
        content = published.content(place_of(name), LARGEST_BYTES)
        if content is None:
            raise UserError(f"{short_line(place_of(name))} is missing in its folder: nothing was published")
        left -= len(content)
        if left < 0:
            raise UserError(
                f"the published records have more than {LARGEST_TOTAL / 2**20:g} MiB: nothing was published"
            )
        (folder / place_of(name)).parent.mkdir(parents=True)
        (folder / place_of(name)).write_bytes(content)
    _lay_out_designs(published, folder)


def _lay_out_designs(published: CommittedFolder, folder: Path) -> None:
    """Write the designs of a published leaderboard to a new folder."""
    for name, entry in published.entries(DESIGNS).items():
        if is_litter(name):
            continue
        place = f"{DESIGNS}/{name}"
        if entry.kind != FILE or not DESIGN_FILE.fullmatch(name):
            raise published.refused(place, entry, "only files that are named by a design's id")
        if (content := published.content(place, LARGEST_BYTES)) is not None:
            (folder / DESIGNS).mkdir(exist_ok=True)
            (folder / place).write_bytes(content)


def _names(published: CommittedFolder) -> list[str]:
    """The published files whose paths may belong to a leaderboard.

    Raises:
        UserError: an entry with such a path is not a file.
    """
    in_folders = [f"{folder}/{name}" for folder in BUILT_FOLDERS for name in published.entries(folder)]
    tables_and_plots = [name for name in in_folders if name.endswith((".csv", ".svg"))]
    return [name for name in (*tables_and_plots, *BUILT_FILES) if published.file(name)]


def _committed(target: Path, start: str, place: str, folder: Path, changes: Changes, index: Path) -> str:
    """The id of a new commit with a leaderboard's changes, which no branch has yet.

    Args:
        start: the id of its parent.
        place: the path of the leaderboard in the repository.
        folder: has the changed files.
        index: a temporary file.
    """
    names = list(changes.files)
    paths = b"".join(os.fsencode(folder / name) + b"\n" for name in names)
    # no filters, so that the clone's settings do not change line ends and the like
    hashed = git(target, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths)
    ids = text(hashed.stdout).split()
    lines = [f"100644 {blob}\t{place}{name}" for blob, name in zip(ids, names, strict=True)]
    lines += [f"0 {'0' * len(start)}\t{place}{name}" for name in changes.removed]  # mode 0 removes an entry
    git(target, "read-tree", start, index=index)
    entries = b"".join(os.fsencode(line) + b"\0" for line in lines)
    git(target, "update-index", "-z", "--index-info", stdin=entries, index=index)
    tree = text(git(target, "write-tree", index=index).stdout)
    message = "\n".join([changes.title, "", *changes.rows]) + "\n"
    committed = git(target, "commit-tree", tree, "-p", start, "-F", "-", stdin=message.encode())
    return text(committed.stdout)
