"""Models of a given shape with random weights, for timing where the real ones are not at hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

SHAPES = {
    "roberta-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"intermediate_size": 4096, "vocab_size": 50265},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    | {"intermediate_size": 1536, "vocab_size": 30522},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 128, "vocab_size": 2000},
}


def save(shape: str, texts: Iterable[str], folder: Path) -> None:
    """A RoBERTa of that shape, and a byte-level BPE learned from the texts, so that lengths are real."""
    sizes = SHAPES[shape]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(
        texts, vocab_size=sizes["vocab_size"], special_tokens=special, show_progress=False
    )
    inner = learned._tokenizer
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    random_model(shape).save_pretrained(folder)


def random_model(shape: str) -> RobertaModel:
    """A RoBERTa of that shape, always with the same weights; without a head, for that depends on the task."""
    torch.manual_seed(0)
    config = RobertaConfig(**SHAPES[shape], max_position_embeddings=514, type_vocab_size=1, pad_token_id=1)
    return RobertaModel(config, add_pooling_layer=False)
