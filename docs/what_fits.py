"""Writes docs/what-fits.md, the GPU memory of a run by model and method: `python docs/what_fits.py`.

The numbers are those by which `--runs-at-a-time auto` decides, counted on the CPU for models of one and of
two layers with random weights. Every further layer adds as much as the second.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.capacity import bytes_of_a_process, bytes_of_a_run
from momentum_bench.harness.execution.plan_sweep import SweepEvents, plan_sweep
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training.session import Session

PAGE = Path(__file__).resolve().parent / "what-fits.md"

CARDS = (16, 24, 48, 80)
"""The memory of common GPUs, in GB."""

COLUMNS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizers": "sgd"},
    "SGDM": {"optimizers": "sgdm"},
    "AdamW": {"optimizers": "adamw"},
    "SGDM, activations computed again": {"optimizers": "sgdm", "checkpoint_activations": True},
    "SGDM of LoRA": {"optimizers": "sgdm", "peft": "lora"},
    "SGDM of a prefix": {"optimizers": "sgdm", "peft": "prefix"},
}
"""The columns of the table, and the settings of their runs."""


@dataclass(frozen=True)
class Shape:
    """A model by its published configuration.

    Attributes:
        n_layers: layers of the whole model.
        config: the configuration with one layer.
    """

    name: str
    n_layers: int
    config: PreTrainedConfig

    @property
    def is_decoder(self) -> bool:
        """Whether it is trained by `causal`."""
        return isinstance(self.config, LlamaConfig)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the table."""
        return ("causal",) if self.is_decoder else ("head", "prompt")


def _roberta(width: int, heads: int) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=50265,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_hidden_layers=1,
    )


def _llama(vocabulary: int, width: int, inner: int, heads: tuple[int, int]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        tie_word_embeddings=True,
        num_hidden_layers=1,
    )


SHAPES = (
    Shape("roberta-base", 12, _roberta(768, 12)),
    Shape("roberta-large", 24, _roberta(1024, 16)),
    Shape("SmolLM2-135M", 30, _llama(49152, 576, 1536, (9, 3))),
    Shape("Llama-3.2-1B", 16, _llama(128256, 2048, 8192, (32, 8))),
)


def counted(shape: Shape, method: str, precision: str) -> dict[str, int]:
    """Bytes that a run of the whole model needs at least, by column: 8 examples of 128 tokens a step."""
    of_one, of_two = (_counted(shape, n, method, precision) for n in (1, 2))
    return {name: of_one[name] + (shape.n_layers - 1) * (of_two[name] - of_one[name]) for name in of_one}


def _counted(shape: Shape, n_layers: int, method: str, precision: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "model", Path(folder) / "data"
        _write_model(shape, n_layers, model)
        _write_rows(data / "sst2")
        return {
            name: _of_a_run(settings | {"model": str(model), "data_dir": data}, method, precision)
            for name, settings in COLUMNS.items()
        }


def _of_a_run(settings: dict[str, Any], method: str, precision: str) -> int:
    common = {"task": "sst2", "method": method, "precision": precision, "k": 8, "seeds": "13", "max_steps": 1}
    common |= {"eval_every": 1, "learning_rates": "0.1", "batch_size": 8, "device": "cpu"}
    planned = plan_sweep(make_sweep(common | settings, None), SweepEvents())
    AcceleratorState._reset_state(reset_partial_state=True)
    session = Session(planned.inputs, make_accelerator(precision, cpu=True))
    found = bytes_of_a_run(session, planned.specs[0])
    del session
    gc.collect()  # a model is part of circles, and the next one needs the room
    return found


WORDS = 124
"""Of a text. With its number, its split and a decoder's template it has 128 tokens, the most of the task."""


def _write_rows(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [{"sentence": f"{split} {row} " + WORDS * "word ", "label": row % 2} for row in range(40)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_model(shape: Shape, n_layers: int, folder: Path) -> None:
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "word",
        "train",
        "validation",
        "great",
        "terrible",
        "It",
    ]
    words += ["was", ".", *map(str, range(40))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if not shape.is_decoder:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
        special |= {"mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(
        folder
    )
    config = type(shape.config).from_dict(shape.config.to_dict() | {"num_hidden_layers": n_layers})
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if shape.is_decoder else AutoModelForMaskedLM
    kind.from_config(config).save_pretrained(folder)


def cell(n_bytes: int) -> str:
    """The GB that a process takes, and in bold the smallest card that has them."""
    taken = bytes_of_a_process(n_bytes) / 1e9
    card = next((card for card in CARDS if taken <= card), None)
    return f"{taken:.1f} (**{card}**)" if card else f"{taken:.1f}"


HEAD = """# What fits on a GPU

What a process with one run takes of a GPU's memory, in GB, and in bold the smallest of cards with 16, 24, 48
and 80 GB that has it. A step has 8 examples of 128 tokens, of SST-2; shorter texts take less.
`docs/what_fits.py` makes the table. It counts as `--runs-at-a-time auto` does: parameters, gradients,
optimizer state and the activations of the longest batch, on a CPU; a fifth more, for what a step allocates
besides; and 1.1 GB for CUDA. **No number was measured on a GPU.**

Parameters, gradients and state are fp32 under every precision. bf16 makes activations smaller, but keeps a
copy of each weight in bf16 until the backward pass, so it saves memory only where activations are large.
Everything lies on the GPU. What does not fit can be spread over several GPUs, or parameters, gradients and
state can stay in the host's memory (FSDP, see [Hardware](hardware.md)): the GPU then holds the activations,
and the weights and gradients of the layers that it computes.

"""


def lines() -> Iterator[str]:
    """The lines of the table, one for each model, method and precision."""
    yield f"| model, method | precision | {' | '.join(COLUMNS)} |"
    yield f"|---|---|{'---:|' * len(COLUMNS)}"
    for shape in SHAPES:
        for method in shape.methods:
            for precision in ("fp32", "bf16"):
                cells = [cell(n) for n in counted(shape, method, precision).values()]
                yield f"| {shape.name}, {method} | {precision} | {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(HEAD + "\n".join(lines()) + "\n", encoding="utf-8")
