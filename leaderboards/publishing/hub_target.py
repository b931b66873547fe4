"""Publishing to a dataset repository of the Hugging Face hub: one commit, on the commit that was read.

The token comes from the environment (`HF_TOKEN`) or from the hub's login. It is neither asked for nor stored.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.hub_requests import patiently
from momentum_bench.harness.records.files import is_litter
from momentum_bench.harness.records.schema import RUN_ID
from momentum_bench.harness.records.store import DESIGNS, MARKER
from momentum_bench.leaderboards.printable import short_line
from momentum_bench.leaderboards.publishing.merge import ATTEMPTS, DESIGN_FILE, Changes, merge, place_of

PREFIX = "hf://datasets/"
CONFLICTS = (409, 412)
"""The HTTP statuses of a commit that the hub refuses because its parent is no longer the latest."""

CARD_FILE = "README.md"
READ = [MARKER, "runs/*/record.json", f"{DESIGNS}/*"]
"""The files that are downloaded. For other files the names are enough."""

CARD = """\
# {name}: a momentum-bench leaderboard

Does momentum help? `index.html` is the page: download it with `plots/` and open it. `leaderboard.csv` has
one row for each task, model, method, k and optimizer, `comparison.csv` the paired differences of two
optimizers with their verdicts, and `trials.parquet` every run. All of them follow from the records
`runs/<id>/record.json`: `momentum-bench leaderboard check` computes them again and names what does not fit.
"""


def repository(target: str) -> str:
    """USER/NAME of `hf://datasets/USER/NAME`.

    Raises:
        UserError: the target has another form.
    """
    name = target.removeprefix(PREFIX).strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"--to {target}: expected {PREFIX}USER/NAME")
    return name


def publish_to_hub(own: Path, name: str, replace: bool, dry_run: bool) -> Changes:
    """Commit a results directory's runs and the tables rebuilt with them; the dataset must exist.

    Args:
        own: a results directory that has passed `merge.check_own`.
        name: USER/NAME of the dataset.
        replace: also replace published runs whose result differs.
        dry_run: nothing is written.

    Raises:
        UserError: the hub cannot be reached, or refuses. See also `merge`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError

    api = HfApi()
    try:
        for attempt in range(ATTEMPTS):
            info = patiently(partial(api.dataset_info, name))
            names = [file.rfilename for file in info.siblings or ()]
            wanted = _wanted(names)
            with TemporaryDirectory(prefix="momentum-bench-") as scratch:
                folder = Path(scratch)
                api.snapshot_download(
                    name,
                    repo_type="dataset",
                    revision=info.sha,
                    local_dir=folder,
                    allow_patterns=READ,
                    ignore_patterns=[escape(file) for file in names if _is_litter(file)],
                )
                _check_whole(folder, wanted)
                changes = merge(folder, names, own, replace)
            if dry_run or not (changes.added or changes.replaced):
                return changes
            files = changes.files if CARD_FILE in names else changes.files | {CARD_FILE: card(name)}
            added = [CommitOperationAdd(place, content) for place, content in files.items()]
            removed = [CommitOperationDelete(place) for place in changes.removed]
            try:
                patiently(
                    partial(
                        api.create_commit,
                        name,
                        [*added, *removed],
                        commit_message=changes.title,
                        commit_description="\n".join(changes.rows),
                        repo_type="dataset",
                        parent_commit=info.sha,
                    )
                )
                return changes
            except HfHubHTTPError as error:
                if error.response.status_code not in CONFLICTS:
                    raise
            time.sleep(0.2 * attempt)
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{PREFIX}{name} does not exist, or this login may not see it: make it with `hf repos create "
            f"{name} --type dataset`, or log in with `hf auth login` or HF_TOKEN"
        ) from error
    except (HTTPError, OSError, HFValidationError) as error:  # OSError: offline, or no connection
        raise UserError(f"the hub, {PREFIX}{name}: {first_line(error)}") from error
    raise UserError(
        f"another publisher committed to {PREFIX}{name} {ATTEMPTS} times in a row: try again later"
    )


def _wanted(names: Iterable[str]) -> list[str]:
    """The files to download. Their names become paths on this machine.

    Raises:
        UserError: a record's path is not one that a run's record can have.
    """
    wanted = [name for name in names if any(fnmatch(name, p) for p in READ) and not _is_litter(name)]
    for name in wanted:
        run_id = name.removeprefix("runs/").removesuffix("/record.json")
        design = name.removeprefix(f"{DESIGNS}/")
        is_design = name != design and DESIGN_FILE.fullmatch(design)
        if name != MARKER and not is_design and not (RUN_ID.fullmatch(run_id) and name == place_of(run_id)):
            raise UserError(
                f"{short_line(name)} is not the path of a record, expected runs/RUN_ID/record.json or "
                f"{DESIGNS}/ID.json: nothing was published"
            )
    return wanted


def _is_litter(name: str) -> bool:
    """Whether a path leads through a folder in `runs` that another program left there."""
    parts = name.split("/")
    return len(parts) == 3 and ".." not in parts and is_litter(parts[1])


def _check_whole(folder: Path, wanted: list[str]) -> None:
    """Raise a UserError if files are missing, because tables built without them would lose others' rows."""
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise UserError(f"{len(missing)} of {len(wanted)} files were not downloaded: nothing was published")


def card(name: str) -> bytes:
    """The dataset card of a new leaderboard. A card that exists belongs to its authors and stays."""
    from huggingface_hub import DatasetCardData

    tables = ("leaderboard.csv", "comparison.csv", "trials.parquet")
    data = DatasetCardData(
        pretty_name="momentum-bench leaderboard",
        tags=["momentum-bench", "leaderboard", "few-shot", "optimizers"],
        configs=[{"config_name": table.partition(".")[0], "data_files": table} for table in tables],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{CARD.format(name=name)}".encode()
