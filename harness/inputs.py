"""What a sweep takes from this machine: the places of its inputs, and a device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Quotes = Literal["raw", "quoted"]
"""What quotes in a TSV are: part of the text, or those of CSV."""


@dataclass(frozen=True)
class Reading:
    """How the rows of a task are read, where that is a choice. None leaves it to the files or the task.

    Attributes:
        tsv: what quotes in TSV files are.
        data_revision: the commit, branch or tag of a data set on the hub.
        protocol: the protocol of the runs, under which a task may have another source.
        given_k: read few-shot splits that others have drawn, for this k.
    """

    tsv: Quotes | None = None
    data_revision: str | None = None
    protocol: str | None = None
    given_k: int | None = None


AS_IT_IS = Reading()
"""Nothing is chosen."""


def recorded_reading(origin: str) -> Reading:
    """How the rows of a run were read, from the origin that its record states; splits are in its spec."""
    if on_the_hub := _ON_THE_HUB.fullmatch(origin):
        return Reading(data_revision=on_the_hub["commit"])
    tsv = re.fullmatch("folder(?:, given splits)?, --tsv (raw|quoted)", origin)
    return Reading(tsv=tsv[1] if tsv else None)  # type: ignore[arg-type]  # the pattern has its two values


_ON_THE_HUB = re.compile(r"(?P<id>[^ ]+)(?: \([^)]*\))? @ (?P<commit>[0-9a-f]{40})")
"""The origin of rows from the hub, as a record states it: `nyu-mll/glue (sst2) @ COMMIT`."""


def recorded_hub_id(origin: str) -> str | None:
    """The data set on the hub that rows came from, from the origin in a record; None: from elsewhere."""
    on_the_hub = _ON_THE_HUB.fullmatch(origin)
    return on_the_hub["id"] if on_the_hub else None


def at_revision(name: str, revision: str) -> str:
    """What to type for the model of a record: a hub's id with its commit, any other name as it is."""
    is_commit = re.fullmatch("[0-9a-f]{40}", revision) is not None  # others are digests of files
    return f"{name}@{revision}" if is_commit else name


@dataclass(frozen=True)
class Inputs:
    """Where a sweep's inputs lie on this machine, and what type of device does its runs.

    This is no part of a spec, and every process that does runs is given it.

    Attributes:
        model: the model as the user typed it.
        data_dir: the folder of local data; None: each task's own source.
        optimizer_file: the files with the user's own optimizers, if there are any.
        task_file: the file with the user's own task, if there is one.
        device: `cpu`, `cuda` or `mps`; None: the best that is there.
        reading: how the rows are read.
    """

    model: str
    data_dir: Path | None
    optimizer_file: tuple[Path, ...] | None = None
    task_file: Path | None = None
    device: str | None = None
    reading: Reading = AS_IT_IS
