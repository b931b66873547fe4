"""Tiny models of several architectures, and sequences for them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    RobertaConfig,
)

from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.packing import with_packing

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BERT = BertConfig(**SIZES)
ROBERTA = RobertaConfig(**SIZES | {"pad_token_id": 1})
LLAMA = LlamaConfig(**SIZES | {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3})
AUTO = {
    "prompt": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
    "head": AutoModelForSequenceClassification,
}


def built(config: Any, method: str, tokenizer: Any) -> LoadedModel:
    """A tiny model of random weights, tried on packed rows."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.vocab_size = len(tokenizer)
    model = AUTO[method].from_config(config)
    return with_packing(LoadedModel(model, {}, (), None), tokenizer, is_head=method == "head")


def sequences(method: str, n: int = 6) -> Encoded:
    """Sequences of 2 to 30 tokens, one or several places of which are read."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 31, (n,), generator=generator).tolist()
    ids = [torch.randint(5, 55, (length,), generator=generator).tolist() for length in lengths]
    places = {
        "prompt": [[length // 2] for length in lengths],
        "causal": [list(range(length - 1))[-1 - i % 3 :] for i, length in enumerate(lengths)],
        "head": None,
    }
    labels = [i % 2 for i in range(n)]
    return Encoded(ids, None, places[method], labels, References(list(labels), None, None), n_truncated=0)
