"""Rows of a task from the hub, at one commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.hub_requests import hub_problem, patiently
from momentum_bench.harness.inputs import Reading
from momentum_bench.harness.installed import check_can_run
from momentum_bench.tasks import HubSource, Task
from momentum_bench.tasks.types import AnySource, AnyTask

_COMMIT = re.compile(r"@([0-9a-f]{40})/")


def source_of(task: AnyTask, reading: Reading) -> AnySource:
    """Where the rows of a task come from without a folder, at the revision that was asked for.

    Raises:
        UserError: a revision is asked for, and the source is not on the hub.
    """
    source = task.source_for(reading.protocol)
    if reading.data_revision is None:
        return source
    if not isinstance(source, HubSource):
        raise UserError(
            f"--data-revision {reading.data_revision}: the rows of {task.name} do not come from the hub, so "
            f"they have no revision there: leave out --data-revision"
        )
    return source.model_copy(update={"revision": reading.data_revision})


def read_hub(
    task: Task, source: HubSource, cached_only: bool = False
) -> tuple[Iterable[dict[str, Any]], Iterable[dict[str, Any]], str]:
    """The rows of train and of test, with the columns that the task uses, and where they came from."""
    theirs = dict(zip(source.text or task.text, task.text, strict=True))
    columns = (*theirs, *task.columns[len(task.text) :], *([source.label] if source.label else []))
    folder = f"DIR/{task.folder or task.name}"
    local = f"{folder}/{task.train}.jsonl and {task.test}.jsonl (columns {list(task.columns)})"
    train, test, origin = hub_splits(task.name, source, (task.train, task.test), local, cached_only)
    wanted = [column for column in columns if column in train.column_names]
    ours = {column: theirs.get(column, column) for column in wanted}
    rows = [split.select_columns(wanted).rename_columns(ours).to_list() for split in (train, test)]
    return rows[0], rows[1], origin


def hub_splits(
    task: str, source: HubSource, splits: tuple[str, str], local: str, cached_only: bool = False
) -> tuple[Any, Any, str]:
    """Two splits from the hub, and their id and commit in one text; `HF_*` variables are respected.

    Online, the revision is first resolved to a commit, so that both splits have the same state. With
    `HF_HUB_OFFLINE=1` they come from the local cache, which also tells the commit.

    Args:
        local: what a local copy looks like, for the error.
        cached_only: ask the local cache, whatever the variables say.

    Raises:
        UserError: the hub or the cache does not give them.
    """
    check_can_run()
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    datasets.disable_progress_bars()
    name = f"{source.id} ({source.config})" if source.config else source.id
    revision = source.revision
    try:
        if cached_only:
            train, test = (loads.cached_dataset(source.id, source.config, split) for split in splits)
        else:
            if not HF_HUB_OFFLINE:
                info = patiently(lambda: HfApi().dataset_info(source.id, revision=source.revision))
                revision = info.sha or revision
            train, test = (
                patiently(partial(loads.hub_dataset, source.id, source.config, split, revision))
                for split in splits
            )
    except Exception as error:  # the hub's client raises many kinds: network, missing, gated, cache
        option = "--data-revision REVISION"
        if problem := hub_problem(error, "data set", source.id, source.revision, option):
            raise UserError(f"{task}: {problem}") from error
        cache = (
            "unset HF_HUB_OFFLINE where there is a network, because it is not in the hub's cache here"
            if HF_HUB_OFFLINE
            else "set HF_HUB_OFFLINE=1 to use the hub's cache on this machine"
        )
        raise UserError(
            f"{task}: the data set {name} cannot be had from the hub: {first_line(error)}\n"
            f"Without network, give a local copy: --data-dir DIR, with {local}, or {cache}"
        ) from error
    checksums = train.info.download_checksums or {}
    commits = {match.group(1) for url in checksums if (match := _COMMIT.search(url))}
    commit = commits.pop() if len(commits) == 1 else revision
    return train, test, f"{name} @ {commit}"
