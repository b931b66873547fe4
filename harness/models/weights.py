"""Weights of a checkpoint: the files that hold them, and the check that memory holds the same."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
WRAPPERS = {
    "module.": "DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "base_model.model.": "peft",
}
"""What libraries put in front of the weights' names when they wrap a model."""
MERGE = (
    "merge it into its base model and give that folder: PeftModel.from_pretrained(BASE, FOLDER)"
    ".merge_and_unload().save_pretrained(NEW_FOLDER)"
)


def refuse_adapter(name: str, folder: Path) -> None:
    """Raises: UserError, if the folder holds an adapter, alone or next to a model."""
    if not (folder / ADAPTER).is_file():
        return
    if _named(folder) is None:
        raise UserError(f"--model {name}: the folder holds an adapter ({ADAPTER}) and no model: {MERGE}")
    raise UserError(
        f"--model {name}: the folder holds a model and an adapter ({ADAPTER}), and only one can be meant. "
        f"For the model alone, give a copy of the folder without {ADAPTER}; for both, {MERGE}"
    )


def _named(folder: Path) -> Path | None:
    """The file that holds the weights, or the index of such files, as transformers names them."""
    return next((folder / file for file in (ONE_FILE, INDEX) if (folder / file).is_file()), None)


def weight_files(name: str, folder: Path) -> list[Path]:
    """The safetensors files of a model: a single one, or those that its index lists.

    Raises:
        UserError: there are no files of these names, or the index is broken.
    """
    named = _named(folder)
    if named is None:
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if not others:
            only = f", only {pickled}, which would have to be unpickled" if pickled else ""
            raise UserError(
                f"--model {name}: no weights: expected *.safetensors{only}. Convert them with "
                f"save_pretrained(..., safe_serialization=True)"
            )
        raise UserError(
            f"--model {name}: no weights: expected {ONE_FILE} or {INDEX}, found {', '.join(others[:5])}. "
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
    """The tensors of safetensors files by name, as slices: only `slice[...]` reads one.

    Raises:
        UserError: a file is broken, two files hold one tensor, or a file holds an adapter's tensors.
    """
    from safetensors import SafetensorError, safe_open

    slices: dict[str, Any] = {}
    with ExitStack() as stack:
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"--model {name}: {path.name} cannot be read: {first_line(error)}. It may "
                    f"have been cut in copying: copy it again, and compare its size"
                ) from error
            for key in file.keys():  # noqa: SIM118, because it is not a mapping
                if key in slices:
                    raise UserError(f"--model {name}: the tensor {key} is in more than one of its files")
                slices[key] = file.get_slice(key)
        if adapted := [key for key in slices if ".lora_" in key]:
            raise UserError(
                f"--model {name}: {paths[0].name} holds an adapter's tensors ({adapted[0]}) that were not "
                f"merged into the model's: {MERGE}"
            )
        yield slices


def under_tied_names(config: PreTrainedConfig, slices: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, with a language model's output under the name of the input that it is tied to.

    A language model that ties the two may store their one table under the output's name, and a classifier
    has no output of that name.
    """
    import torch

    if not getattr(config.get_text_config(), "tie_word_embeddings", False):
        return dict(slices)
    tied: dict[str, str] = {}
    heads: tuple[loads.Head, ...] = ("masked_lm", "causal_lm")
    for head in heads:
        try:
            with torch.device("meta"):
                tied |= loads.untrained_model(head, config).all_tied_weights_keys
        except (ValueError, UserError):  # there is no such head for this type of model
            continue
    renamed = {
        output: entry
        for output, entry in tied.items()
        if output in slices and not any(f".{entry}".endswith(f".{key}") for key in slices)
    }
    return {renamed.get(key, key): tensor for key, tensor in slices.items()}


def without_classifier(config: PreTrainedConfig, slices: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors without an old classifier, so that a new one is drawn, whatever size the old one has.

    The classifier is all that stands above the encoder. Some models also keep a part of their language
    model's head there (ModernBERT). Where the file holds a language model, that part is pre-trained and
    stays.
    """
    import torch

    with torch.device("meta"):
        model = loads.untrained_model("classifier", config)
    inside = f"{model.base_model_prefix}."
    classifier = {name for name in model.state_dict() if not name.startswith(inside)}
    of_language_models: set[str] = set()
    heads: tuple[loads.Head, ...] = ("masked_lm", "causal_lm")
    for head in heads if classifier & set(slices) else ():
        try:
            with torch.device("meta"):
                of_language_models |= set(loads.untrained_model(head, config).state_dict())
        except (ValueError, UserError):  # there is no such head for this type of model
            continue
    is_there = any(name in slices for name in classifier - of_language_models)
    return {name: tensor for name, tensor in slices.items() if not (is_there and name in classifier)}


def missing_weights(
    name: str, model: PreTrainedModel, slices: Mapping[str, Any], reported: set[str]
) -> list[str]:
    """Names in the model's state that no tensor of the files gave; all others are compared with the files.

    One tensor is read at a time. Names are translated to the model's as in transformers' own loading: old
    spellings, and the base model's prefix that is there or not. Weights that transformers merges from
    several tensors (the experts of a mixture) are taken apart again for the comparison.

    Args:
        reported: names that transformers reports as missing.

    Raises:
        UserError: a value in memory differs from the one in the file.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
        revert_weight_conversion,
    )

    state, prefix = model.state_dict(), model.base_model_prefix
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    filled, merged = set(), []
    for key in sorted(slices, key=dot_natural_key):  # the order in which transformers renames them
        target, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if pattern is not None:
            merged.append(key)
        elif target in state:
            _compare(name, target, state[target], key, slices[key])
            filled.add(target)
    if merged:
        stored = revert_weight_conversion(model, state)
        for key in merged:
            near = (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}."))
            if target := next((spelled for spelled in near if spelled in stored), None):
                _compare(name, target, stored[target], key, slices[key])
        filled |= set(state) - reported
    read = {_place(state[target]) for target in filled}
    return [
        target
        for target, value in state.items()
        if value.is_floating_point() and target not in filled and _place(value) not in read
    ]


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    """Where a tensor lies and how large it is; the same for tensors that are tied."""
    return tensor.data_ptr(), tuple(tensor.shape)


def _compare(name: str, target: str, value: torch.Tensor, key: str, stored: Any) -> None:
    import torch

    expected = stored[...].to(value.dtype)
    if value.dtype == torch.float32:  # bit by bit, so that a NaN equals itself
        value, expected = value.view(torch.int32), expected.contiguous().view(torch.int32)
    if not torch.equal(value, expected):
        raise UserError(
            f"--model {name}: after loading, {target} is not what the file holds as {key}: the model's "
            f"config.json does not fit its weights (look at its tie_word_embeddings and sizes)"
        )


def new_ones(
    name: str, model: PreTrainedModel, missing: Sequence[str], file_names: Collection[str]
) -> list[str]:
    """The missing names, if a new classifier may have them: all above the encoder, and the encoder's pooler.

    The pooler may be new only if the file holds no part of it: masked language models are saved without.

    Raises:
        UserError: another weight is missing; the message has the nearest names in the file.
    """
    inside, pooler = f"{model.base_model_prefix}.", f"{model.base_model_prefix}.pooler."
    n_pooler = sum(target.startswith(pooler) for target in model.state_dict())
    without_pooler = sum(target.startswith(pooler) for target in missing) == n_pooler
    lost = [
        target
        for target in missing
        if target.startswith(inside) and not (without_pooler and target.startswith(pooler))
    ]
    if lost:
        raise UserError(_lost(name, model, lost, file_names))
    return list(missing)


def _lost(name: str, model: PreTrainedModel, lost: Sequence[str], file_names: Collection[str]) -> str:
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    text = (
        f"--model {name}: {type(model).__name__} needs weights that the file does not hold, and only a "
        f"classifier may be new: {', '.join(lost[:3])}{more} missing"
    )
    for prefix in _prefixes(lost[0], model.base_model_prefix, file_names):
        stems = [target.removeprefix(f"{model.base_model_prefix}.") for target in lost]
        explained = sum(
            f"{prefix}{t}" in file_names or f"{prefix}{s}" in file_names
            for t, s in zip(lost, stems, strict=True)
        )
        if 2 * explained >= len(lost):
            wrapper = WRAPPERS.get(prefix)
            by = f", as {wrapper} names them" if wrapper else ""
            return f"{text}. The names in the file start with {prefix!r}{by}: save the model without it"
    near = difflib.get_close_matches(lost[0], list(file_names), n=3, cutoff=0.4)
    shown = f"the nearest names in the file are {', '.join(near)}" if near else "no name in the file is near"
    return f"{text}; {shown}. Is this the model that config.json describes?"


def _prefixes(target: str, base: str, file_names: Collection[str]) -> list[str]:
    """The prefixes that a missing name has among the names in the file, the shortest first."""
    stems = (target, target.removeprefix(f"{base}."))
    prefixes = {key.removesuffix(stem) for key in file_names for stem in stems if key.endswith(f".{stem}")}
    return sorted(prefixes - {f"{base}."}, key=len)
