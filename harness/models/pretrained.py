"""Pre-trained models: where they come from, what revision they are, and how a method loads them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.models.files import ModelSource
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.weights import (
    missing_weights,
    new_ones,
    opened,
    under_tied_names,
    weight_files,
    without_classifier,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch
    from transformers import PreTrainedModel

HEADS: dict[str, loads.Head] = {"prompt": "masked_lm", "head": "classifier", "causal": "causal_lm"}
"""The head that each method puts on the encoder."""
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


TOKENIZER_FILES = ("tokenizer*.json", "vocab.*", "merges.txt", "*.model", "*.codes")
"""Names of the files in which tokenizers of transformers are stored, for messages."""
OTHER_FORMATS = ("tokenizer.model", "tekken.json", ".tiktoken")
"""Files that transformers turns into a tokenizer, whatever names the tokenizer's class has."""


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, from its own files. If it has no padding token, its end of text pads.

    Raises:
        UserError: its files are missing, or cannot be read.
    """
    try:
        tokenizer = loads.tokenizer_in(source.folder, source.gguf)
    except UserError:
        raise
    except Exception as error:  # the library `tokenizers` raises Exception itself
        found = sorted({path.name for pattern in TOKENIZER_FILES for path in source.folder.glob(pattern)})
        raise UserError(
            f"--model {source.name}: its tokenizer does not load: {first_line(error)}. The folder has "
            f"{', '.join(found) or 'no file of a tokenizer'}: copy all files of the model's tokenizer into "
            f"it. If they are all there, a newer transformers may have written them: update transformers"
        ) from error
    if source.gguf is None:
        _check_vocabulary_is_there(source, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_vocabulary_is_there(source: ModelSource, tokenizer: Any) -> None:
    """Raises: UserError, if the tokenizer's vocabulary is in no file.

    transformers then builds it with its special tokens alone, and every word is unknown.
    """
    names: dict[str, str] = dict(getattr(tokenizer, "vocab_files_names", {}))
    there = {path.name for path in source.folder.iterdir()}
    if not names or "tokenizer.json" in there or any(name.endswith(OTHER_FORMATS) for name in there):
        return  # a tokenizer of characters or bytes needs no file
    wanted = [file for kind, file in names.items() if kind in ("vocab_file", "merges_file")]
    lost = [file for file in wanted or ["tokenizer.json"] if file not in there]
    if lost:
        either = " or ".join(["tokenizer.json", *([" and ".join(wanted)] if wanted else [])])
        raise UserError(
            f"--model {source.name}: the folder lacks {' and '.join(lost)}, so {type(tokenizer).__name__} "
            f"has no vocabulary and every word would be unknown: copy {either} from where the model comes "
            f"from, or save its tokenizer there with save_pretrained"
        )


def agree_on_padding(model: PreTrainedModel, tokenizer: Any) -> None:
    """Tell a decoder's classifier which token pads its batches.

    The classifier reads the last token of each text: the last one that is not its configuration's
    `pad_token_id`. If that is not set it refuses batches, and if it is another token it reads the padding.

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


def load_model(
    source: ModelSource,
    method: str,
    n_labels: int,
    dropout: float | None,
    kept_labels: Sequence[Collection[str]] | None = None,
) -> LoadedModel:
    """Load a model in fp32 for a method, with its own head, or under `head` with a new classifier.

    Under `prompt` the output embedding is untied from the input embedding, as in the reference code
    of LM-BFF and MeZO: each has its own gradient. Under `causal` they stay as they are in the model.

    Args:
        n_labels: outputs of the new classifier; without effect under other methods.
        dropout: probability set in the whole model; None: the model's own.
        kept_labels: under `head`, keep the model's own classifier, and check that it was trained on labels
            of these names, in this order; each label may have several names. None: a new classifier.

    Raises:
        UserError: the checkpoint lacks the language-model head, or the classifier that is to be kept, or
            the model cannot be loaded.
    """
    import torch

    try:
        config = loads.config_in(source.folder, source.gguf)
        if method == "head" and kept_labels is not None:
            _check_labels(source, config, n_labels, kept_labels)
        elif method == "head":
            config.num_labels = n_labels
        if method == "causal":
            _check_decoder(source, config)
            config.use_cache = False  # nothing is generated
        if dropout is not None:
            _set_dropout(config, dropout)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # new parts start the same in every process; each run draws them later
            model, missing, file_names = _pretrained(source, HEADS[method], config, kept_labels is not None)
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
    if kept_labels is not None and missing:
        raise UserError(
            f"--head kept: --model {source.name} has no classifier of its own that fits "
            f"{type(model).__name__} ({sorted(missing)[0]} is missing): leave out --head"
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


def _check_labels(
    source: ModelSource, config: Any, n_labels: int, kept_labels: Sequence[Collection[str]]
) -> None:
    """Raises: UserError, if the model's classifier is of other labels, or of the same in another order."""
    if config.num_labels != n_labels:
        raise UserError(
            f"--head kept: the classifier of --model {source.name} has {config.num_labels} outputs, and the "
            f"task needs {n_labels}: leave out --head"
        )
    found = [str(config.id2label.get(i)) for i in range(n_labels)]
    if len(kept_labels) < 2:
        return  # the one output of a regression, or of a candidate, has no name
    for name, known in zip(found, kept_labels, strict=True):
        if _letters(name) not in {_letters(each) for each in known}:
            raise UserError(
                f"--head kept: the classifier of --model {source.name} has the labels {', '.join(found)} "
                f"(id2label in its config.json), and the task has, in this order, "
                f"{', '.join(map(' or '.join, kept_labels))}. If they are the same, write the task's names "
                f"into id2label; else leave out --head"
            )


def _letters(text: str) -> str:
    """A label without the ways in which its spelling may vary."""
    return "".join(letter for letter in text.casefold() if letter.isalnum()) or text


def _pretrained(
    source: ModelSource, head: loads.Head, config: Any, keeps_classifier: bool
) -> tuple[Any, list[str], list[str]]:
    """The model, the names of its weights that no file holds, and the names in the files.

    Afterwards the weights in memory are compared with those in safetensors files. A GGUF file is not read
    again, because unpacking its weights from a few bits each takes longer than all the rest.
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

    def used(slices: dict[str, Any]) -> dict[str, Any]:
        if head != "classifier":
            return slices
        named = under_tied_names(config, slices)
        return named if keeps_classifier else without_classifier(config, named)

    with opened(source.name, paths) as slices:
        model, info = loads.model_of_weights(head, config, used(slices))
    # opened again, because parameters may share the memory of the first reading
    with opened(source.name, paths) as again:
        missing = missing_weights(source.name, model, used(again), info["missing_keys"])
        return model, missing, list(again)


def _check_decoder(source: ModelSource, config: Any) -> None:
    """Raises: UserError, for an encoder; transformers would silently load it as a decoder."""
    named = config.architectures or ()
    if named and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        raise UserError(
            f"--method causal needs a decoder-only language model, and --model {source.name} is a "
            f"{' and '.join(named)}: use --method prompt or head, or another model"
        )


def _vocabulary_head(model: Any) -> torch.nn.Module | None:
    """The module next to the encoder, if there is only one and it proves to be the whole head."""
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
        except (TypeError, AttributeError):  # the head needs more than hidden states
            return None
    if not isinstance(at_one, torch.Tensor):  # XLM's head gives a tuple
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

    Vectors (biases, norms) keep the constants that transformers gave them. Vectors that transformers
    draws are drawn here too, because its generator is not the run's.
    """
    import torch

    from momentum_bench.harness.sharded_tensors import put, whole

    generator = torch.Generator().manual_seed(seed)
    std = getattr(model.config, "initializer_range", 0.02)
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.ndim > 1 or len(whole(parameter).unique()) > 1:
            put(parameter, torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions")
"""The names that transformers' models give to their table of positions."""


def max_input_length(model: torch.nn.Module, tokenizer: Any) -> int:
    """How many tokens the model can read: the smaller of its tokenizer's limit and its positions.

    RoBERTa and models like it count positions from `padding_idx + 1` on, so their tables have so many rows
    that no token uses.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 10**9
    for name, table in model.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and hasattr(table, "weight"):
            padding = getattr(table, "padding_idx", None)
            unused = getattr(table, "offset", 0 if padding is None else padding + 1)
            positions = min(positions, int(table.weight.shape[0]) - unused)
    limit: int = min(positions, tokenizer.model_max_length)
    return limit


def has_segments(model: torch.nn.Module) -> bool:
    """Whether the model can tell the two texts of a pair apart by segment ids."""
    inner: Any = getattr(model, "get_base_model", lambda: model)()  # without the adapter of peft
    if "token_type_ids" not in inspect.signature(type(inner).forward).parameters:
        return False
    # XLNet has no table of segments: each layer has a parameter of its own for them
    in_layers = any(name.endswith(".seg_embed") for name, _ in inner.named_parameters())
    return in_layers or (getattr(inner.config, "type_vocab_size", None) or 0) > 1
