"""Adapters of the `peft` library: a few new parameters are trained, the pre-trained ones stay.

Their settings are constants, so an adapter's name says all about it. Where Malladi et al. 2023 (MeZO,
Table 15) have a setting, it is theirs.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from importlib import metadata
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    inject_adapter_in_model,
)
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.loaded import Adapter, LoadedModel

LORA_RANK, LORA_ALPHA = 8, 16  # MeZO's
PREFIX_TOKENS = 5  # MeZO's
PROMPT_TOKENS = 20  # MeZO has none; Lester et al. 2021 gain little beyond 20


class PromptedEncoder(PeftModel):  # type: ignore[misc]  # mypy does not read peft
    """An encoder or decoder with virtual tokens before its input, and with outputs for the text alone.

    The virtual tokens are keys and values of every layer (prefix tuning, Li & Liang 2021), or embeddings
    before the first layer (prompt tuning, Lester et al. 2021). peft's own models for tasks drop segment
    ids, and leave the virtual tokens in the output, where a head would read the first of them instead of
    the text's first token.
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """B x T token ids -> hidden states, B x T x H."""
        # peft keeps these numbers on the CPU and sends them with every batch, and a GPU waits for that
        for name, numbers in self.prompt_tokens.items():
            self.prompt_tokens[name] = numbers.to(input_ids.device)
        prompt = self.get_prompt(len(input_ids))
        n_virtual = self.active_peft_config.num_virtual_tokens
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        kwargs["attention_mask"] = nn.functional.pad(attention_mask, (n_virtual, 0), value=1)
        if isinstance(prompt, DynamicCache):
            if token_type_ids is not None:
                kwargs["token_type_ids"] = token_type_ids
            return self.base_model(input_ids=input_ids, **kwargs | {"past_key_values": prompt})
        if token_type_ids is not None:
            kwargs["token_type_ids"] = nn.functional.pad(token_type_ids, (n_virtual, 0))
        words = self.word_embeddings(input_ids)
        kwargs["inputs_embeds"] = torch.cat([prompt.to(words.dtype), words], dim=1)
        output = self.base_model(**kwargs)
        output.last_hidden_state = output.last_hidden_state[:, n_virtual:]
        if getattr(output, "pooler_output", None) is not None:
            output.pooler_output = self.base_model.pooler(output.last_hidden_state)
        return output


def with_adapter(loaded: LoadedModel, kind: str) -> LoadedModel:
    """Add an adapter to a model that was just loaded and is still on the CPU.

    Args:
        kind: `lora`, `ia3`, `prefix` or `prompt`.

    Raises:
        UserError: peft does not know where to adapt this type of model, or the adapter does not work.
    """
    model = loaded.model
    before = {parameter: name for name, parameter in model.named_parameters()}
    new = [parameter for parameter, name in before.items() if name in loaded.new_parameters]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # peft then draws the same in every process; a run's seed comes later
            config = _inject(model, kind) if kind in ("lora", "ia3") else _prepend(model, kind)
        names = {parameter: name for name, parameter in model.named_parameters()}
        adapted = dataclasses.replace(
            loaded,
            pristine={name: value.clone() for name, value in model.state_dict().items()},
            new_parameters=tuple(names[parameter] for parameter in new),
            adapter=Adapter(
                parameters=tuple(name for parameter, name in names.items() if parameter not in before),
                virtual_tokens=getattr(config, "num_virtual_tokens", 0),
                settings=_settings(config),
            ),
        )
        draw_adapter(adapted, seed=0)
        _check_reached(adapted)
        _unsettle(adapted)
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        other = "lora" if kind == "prompt" else "prompt"
        raise UserError(
            f"--peft {kind} does not work with {type(model).__name__} (model type "
            f"{model.config.model_type}): {error}. Use --peft {other}, --freeze encoder, or another --model"
        ) from error
    return adapted


def _inject(model: PreTrainedModel, kind: str) -> LoraConfig | IA3Config:
    """Adapt those layers of the encoder that peft names for the type of model, and none of the head."""
    config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA) if kind == "lora" else IA3Config()
    try:
        inject_adapter_in_model(config, model.base_model)
    except ValueError as error:
        raise ValueError(f"peft does not know which of its layers to adapt ({error})") from error
    return config


def _prepend(model: PreTrainedModel, kind: str) -> PrefixTuningConfig | PromptTuningConfig:
    parent, name = model, model.base_model_prefix
    nested = [n for n, child in model.base_model.named_children() if isinstance(child, PreTrainedModel)]
    if len(nested) == 1:  # OPT's heads call the decoder inside the base model
        parent, name = model.base_model, nested[0]
    if kind == "prefix":
        config = PrefixTuningConfig(num_virtual_tokens=PREFIX_TOKENS)
    else:
        config = PromptTuningConfig(num_virtual_tokens=PROMPT_TOKENS)
    config.token_dim = model.config.hidden_size
    config.num_attention_heads = model.config.num_attention_heads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls transformers by an outdated name
        setattr(parent, name, PromptedEncoder(getattr(parent, name), config))
    return config


def _settings(config: LoraConfig | IA3Config | PrefixTuningConfig | PromptTuningConfig) -> dict[str, Any]:
    """The settings in peft's live configuration, and peft's version."""
    names = ("r", "lora_alpha", "lora_dropout", "target_modules", "feedforward_modules", "num_virtual_tokens")
    given = {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}
    plain = {name: tuple(sorted(v)) if isinstance(v, set | list) else v for name, v in given.items()}
    return {"peft": metadata.version("peft")} | plain


def draw_adapter(loaded: LoadedModel, seed: int) -> None:
    """Draw an adapter's first values from the seed alone, on the CPU, whatever the device.

    LoRA's A is Kaiming-uniform as in peft; its B is 0 and (IA)^3 is 1, so both start without changing the
    model. Virtual tokens start as tokens drawn from the vocabulary: as their embeddings (Lester et al.
    2021), or as the keys and values that they have in every layer (Malladi et al. 2023, for prefixes).
    """
    assert loaded.adapter is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in loaded.adapter.parameters:
            parameter = loaded.model.get_parameter(name)
            if ".lora_A." in name:
                first = torch.empty(parameter.shape)
                nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
                parameter.copy_(first)
    for module in loaded.model.modules():
        if isinstance(module, PromptedEncoder):
            _draw_virtual_tokens(module, generator)


@torch.no_grad()
def _draw_virtual_tokens(module: PromptedEncoder, generator: torch.Generator) -> None:
    [embedding] = (encoder.embedding for encoder in module.prompt_encoder.values())
    n_virtual = module.active_peft_config.num_virtual_tokens
    n_words = module.word_embeddings.num_embeddings
    tokens = torch.randint(n_words, (1, n_virtual), generator=generator).to(embedding.weight.device)
    if isinstance(module.active_peft_config, PromptTuningConfig):
        embedding.weight.copy_(module.word_embeddings(tokens)[0])
        return
    was_training = module.training
    module.eval()
    cache = DynamicCache()
    module.base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens), past_key_values=cache)
    module.train(was_training)
    if not cache.layers:
        raise ValueError("its layers take no keys and values from outside")
    # n x layers x (key, value) x heads x size of a head, because peft splits them in this order
    both = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    embedding.weight.copy_(both.permute(3, 0, 1, 2, 4).reshape(embedding.weight.shape))


@torch.no_grad()
def _unsettle(loaded: LoadedModel) -> None:
    """Move an adapter from its start, where it changes nothing, so that a trial of the model tests it."""
    assert loaded.adapter is not None
    generator = torch.Generator().manual_seed(0)
    for name in loaded.adapter.parameters:
        parameter = loaded.model.get_parameter(name)
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def _check_reached(loaded: LoadedModel) -> None:
    """Raises: ValueError, if the model's scores do not depend on each part of the adapter."""
    assert loaded.adapter is not None
    model = loaded.model
    parameters = [model.get_parameter(name) for name in loaded.adapter.parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    ids = torch.arange(5, 13).view(1, 8) % model.config.vocab_size
    model.eval()
    scores = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if not scores.requires_grad:
        raise ValueError("its scores do not depend on the adapter")
    gradients = torch.autograd.grad(scores.sum(), parameters, allow_unused=True)
    unused = [n for n, g in zip(loaded.adapter.parameters, gradients, strict=True) if g is None]
    if unused or not parameters:
        raise ValueError(f"its scores do not depend on {unused[0] if unused else 'the adapter'}")
