"""Weights of a checkpoint: the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UserError, first_line

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def _named(folder: Path) -> Path | None:
    """The file that holds the weights or lists the files that do, as transformers names it."""
    return next((folder / file for file in (ONE_FILE, INDEX) if (folder / file).is_file()), None)


def weight_files(name: str, folder: Path) -> list[Path]:
    """The safetensors files of a model: the one, or those that its index lists.

    Raises:
        UserError: there are none of these names, or the index is broken.
    """
    named = _named(folder)
    if named is None:
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if not found:
            only = f", only {pickled}, which would have to be unpickled" if pickled else ""
            raise UserError(
                f"--model {name}: no weights: expected *.safetensors{only}. Convert them with "
                f"save_pretrained(..., safe_serialization=True)"
            )
        raise UserError(
            f"--model {name}: no weights: expected {ONE_FILE} or {INDEX}, found {', '.join(found[:5])}. "
            f"Rename the file that holds the model"
        )
    if named.name == ONE_FILE:
        return [named]
    try:
        files = sorted(set(json.loads(named.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [folder / file for file in files if Path(file).name == file]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--model {name}: {INDEX} cannot be read: {first_line(error)}") from error
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths or len(paths) < len(files):
        shown = missing or files or ["no file at all"]
        raise UserError(
            f"--model {name}: {INDEX} lists {shown[0]}, expected files *.safetensors next to it: copy the "
            f"model again, with all its files"
        )
    return paths


@contextmanager
def opened(name: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The tensors of safetensors files by name, as slices: nothing is read before `slice[...]`.

    Raises:
        UserError: a file is broken, or a tensor is there twice.
    """
    from safetensors import SafetensorError, safe_open

    slices: dict[str, Any] = {}
    with ExitStack() as stack:
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"--model {name}: {path.name} cannot be read: {first_line(error)}") from error
            for key in file.keys():  # noqa: SIM118, it is no mapping
                if key in slices:
                    raise UserError(f"--model {name}: the tensor {key} is in more than one of its files")
                slices[key] = file.get_slice(key)
        yield slices
