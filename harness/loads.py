"""The one place where libraries load something by name, or from files that others made.

None of these calls may run code that comes with the files. Without `trust_remote_code` transformers asks
on the terminal, and takes the answer from standard input. So `trust_remote_code` is False in each call
here, and a test looks for such calls in other files.

Libraries are imported on demand: this module does not load torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from momentum_bench.harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


Head = Literal["masked_lm", "classifier", "causal_lm", "image_classifier"]
"""The kind of output layer of a model."""


def _auto_class(head: Head) -> Any:
    import transformers

    names = {
        "masked_lm": "AutoModelForMaskedLM",
        "classifier": "AutoModelForSequenceClassification",
        "causal_lm": "AutoModelForCausalLM",
        "image_classifier": "AutoModelForImageClassification",
    }
    return getattr(transformers, names[head])


def config_in(folder: str | Path, gguf: str | None = None, **changes: Any) -> PreTrainedConfig:
    """The configuration of the model in a folder.

    Args:
        gguf: the name of the GGUF file in the folder that holds it; None: `config.json` holds it.
        changes: values that replace those of the folder.

    Raises:
        UserError: it needs code from the folder, or a kernel from the hub.
        OSError, ValueError, KeyError, ImportError: transformers cannot read it.
    """
    from transformers import AutoConfig

    with _no_code_of(folder):
        config = AutoConfig.from_pretrained(
            folder, gguf_file=gguf, local_files_only=True, trust_remote_code=False, **changes
        )
    attention = getattr(config, "_attn_implementation", None)
    if attention is not None and "/" in str(attention):
        raise UserError(
            f"{folder}/config.json: attn_implementation is {attention!r}, which is code on the hub, and "
            f"momentum-bench runs no code that comes with a model: delete that line"
        )
    return config


def config_of_type(model_type: str, **fields: Any) -> PreTrainedConfig:
    """A configuration of one of transformers' own types of models."""
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **fields)


def tokenizer_in(folder: str | Path, gguf: str | None = None) -> Any:
    """The tokenizer in a folder.

    Raises:
        UserError: the folder names code of its own for it.
        OSError, ValueError, KeyError, ImportError: transformers cannot read it.
    """
    from transformers import AutoTokenizer

    own = Path(folder) / "tokenizer_config.json"
    if _names_code(own):  # transformers may use its own tokenizer instead, which splits texts differently
        raise UserError(_refusal(own))
    with _no_code_of(folder):
        return AutoTokenizer.from_pretrained(
            folder, gguf_file=gguf, local_files_only=True, trust_remote_code=False
        )


def untrained_model(head: Head, config: PreTrainedConfig) -> PreTrainedModel:
    """A model in fp32 with random weights from torch's generator in its present state.

    Raises:
        UserError: it needs code that comes with the configuration.
        ValueError: transformers has no such model.
    """
    import torch

    try:
        return _auto_class(head).from_config(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as error:
        if getattr(config, "auto_map", None):
            raise UserError(_refusal(Path(config.name_or_path) / "config.json")) from error
        raise


def model_of_weights(
    head: Head, config: PreTrainedConfig, weights: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model in fp32 on the CPU with these weights, and transformers' report about loading them.

    transformers gets the weights and no folder, because from a folder it also loads other files: an
    adapter, the parts of a distributed checkpoint, a file that the configuration names.

    Args:
        weights: by name, tensors or slices of `safe_open`, which are read when they are used.

    Raises:
        UserError: it needs code that comes with the configuration.
        ValueError: transformers has no such model.
        RuntimeError: shapes differ.
    """
    import torch

    with torch.device("meta"):
        kind = type(untrained_model(head, config))
    loaded: tuple[PreTrainedModel, dict[str, Any]] = kind.from_pretrained(
        None,
        config=config,
        state_dict=dict(weights),
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    return loaded


def model_of_gguf(
    head: Head, config: PreTrainedConfig, folder: Path, gguf: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model in fp32 on the CPU with the weights of a GGUF file, and transformers' report about it."""
    import torch

    with _without_its_bar():
        loaded: tuple[PreTrainedModel, dict[str, Any]] = _auto_class(head).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            gguf_file=gguf,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    return loaded


@contextmanager
def _without_its_bar() -> Iterator[None]:
    """Show no progress of reading a GGUF file; transformers' switch for progress bars does not reach it."""
    from transformers import modeling_gguf_pytorch_utils as module

    bar = module.tqdm
    module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar


def hub_dataset(name: str, config: str | None, split: str, revision: str | None) -> Any:
    """One split of a data set on the hub. Since version 4 the library runs no code of data sets."""
    import datasets

    return datasets.load_dataset(name, config, split=split, revision=revision, trust_remote_code=False)


def cached_dataset(name: str, config: str | None, split: str) -> Any:
    """One split of a data set of the hub as the library last left it in its cache. Nothing is downloaded.

    Raises:
        ValueError: it is not there.
    """
    from datasets.packaged_modules.cache.cache import Cache

    builder = Cache(
        dataset_name=name.rpartition("/")[2], config_name=config, version="auto", hash="auto", repo_id=name
    )
    return builder.as_dataset(split)


def metric_module(name: str) -> Any:
    """A metric of the `evaluate` library: one of its own by name, or the script in a folder of the user.

    A metric is a script there, and the library runs it without a question. So a name loads only metrics of
    the library's own organisations on the hub. The script in a folder runs only if the name is written as
    a path, because otherwise a folder in the current directory could replace the library's metric.

    Raises:
        UserError: a metric of another organisation, or a folder that is not written as a path.
    """
    import evaluate

    if name.startswith(("/", "./", "../")):
        return evaluate.load(name, keep_in_memory=True)
    if "/" in name or name.endswith(".py"):
        raise UserError(
            f"metric evaluate:{name}: its script is neither one of the library's own nor a file of yours, so "
            f"it is not run. Download it, read it, and give the path of its folder: evaluate:./FOLDER"
        )
    if os.path.exists(name):
        raise UserError(
            f"metric evaluate:{name}: the current folder also holds a {name}, and evaluate would run the "
            f"script there. Write evaluate:./{name} for that one, or start in another folder"
        )
    return evaluate.load(name, keep_in_memory=True)


@contextmanager
def _no_code_of(folder: str | Path) -> Iterator[None]:
    """Turn a failure into a clear message if the model's configuration names code of its own."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        path = Path(folder) / "config.json"
        if _names_code(path):
            raise UserError(_refusal(path)) from error
        raise


def _names_code(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and bool(content.get("auto_map"))


def _refusal(path: str | Path) -> str:
    return (
        f"{path} names Python code that comes with it (auto_map), and no such code is run here: use a "
        f"model of a type that the installed transformers has"
    )
