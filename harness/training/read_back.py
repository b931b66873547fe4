"""What a record says about a running run, read from the live objects and not from what was asked for."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from momentum_bench.harness.data.task_kinds import Prediction
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.models.activations import n_checkpointed
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.packing import TOLERANCE
from momentum_bench.harness.models.trainable import numbers_hidden, trained_parameters
from momentum_bench.harness.optimizers import live
from momentum_bench.harness.optimizers.arms import parse_arm
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.optimizer_class import all_arguments, package_of
from momentum_bench.harness.records.schema import NO_OPTIMIZER, DevPredictions, FinalScore, ReadBack, RunSpec
from momentum_bench.harness.sharded_tensors import local
from momentum_bench.harness.training import cuda_graphs
from momentum_bench.harness.training.arithmetic import convolutions, live_autocast
from momentum_bench.harness.training.run_parts import RunParts
from momentum_bench.harness.training.scoring import Scores


def layout_of(loaded: LoadedModel) -> dict[str, int | str]:
    """How batches and parameters are laid out and which part of them is computed, for the record."""
    if loaded.sharded and loaded.shared:
        units = sum(isinstance(module, FSDPModule) for module in loaded.shared.modules())
        parameters = [local(parameter) for parameter in loaded.model.parameters()]
        return _layout_of_batches(loaded) | {
            "fsdp2_units": units,
            "parameters_on_rank_0": sum(parameter.numel() for parameter in parameters),
            "parameters_in": ",".join(sorted({parameter.device.type for parameter in parameters})),
        }
    return _layout_of_batches(loaded)


def _layout_of_batches(loaded: LoadedModel) -> dict[str, int | str]:
    if not loaded.why_padded and loaded.packing is None:
        return {"padding": "none", "inputs": "images"}
    if loaded.packing is not None:
        equal = f"as padded within {TOLERANCE:g} of the largest score"
        return {"padding": "none", "packed_scores": equal, "last_layer": loaded.packing.last_layer}
    scores = "at the places read" if loaded.vocabulary_head else "of the whole model"
    return {"padding": "dynamic", "why_padded": loaded.why_padded, "scores": scores}


def final_score(result: Scores, parts: RunParts) -> FinalScore:
    """What a record says about the scores of test: those of all the task's metrics, and each prediction."""
    references = parts.split.test.references
    return FinalScore(
        metric=result.metric,
        further={
            name: compute(name, references.answers, result.predictions, references.questions)
            for name in parts.task.further_metrics
        },
        loss=result.loss if math.isfinite(result.loss) else None,
        rows=tuple(parts.split.test_rows),
        labels=tuple(references.answers),
        predictions=tuple(result.predictions),
        questions=None if references.questions is None else tuple(references.questions),
    )


def dev_predictions(predictions: Sequence[Prediction], parts: RunParts) -> DevPredictions:
    """What a record says about the dev split: each prediction of the chosen checkpoint, and what is right."""
    references = parts.split.dev.references
    return DevPredictions(
        labels=tuple(references.answers),
        predictions=tuple(predictions),
        questions=None if references.questions is None else tuple(references.questions),
    )


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: on a GPU the device's since the last reset, else this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def read_live(
    spec: RunSpec,
    parts: RunParts,
    optimizer: torch.optim.Optimizer | None,
    micro_size: int | None = None,
) -> ReadBack:
    """What really runs, read from the live objects after the first step.

    Args:
        optimizer: the live optimizer; None: nothing is trained.
        micro_size: examples of a micro-batch; None: as the spec says.
    """
    loaded, accelerator = parts.loaded, parts.accelerator
    model = loaded.model
    trainable = [p for p in model.parameters() if p.requires_grad and optimizer]
    dropouts = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    on_cuda = accelerator.device.type == "cuda"
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in trainable or model.parameters()})
    return ReadBack(
        **_optimizer_facts(optimizer),
        **_facts_without_promises(spec, parts, optimizer),
        n_trainable_parameters=sum(p.numel() for p in trainable),
        new_parameters=loaded.new_parameters,
        parameter_dtype=",".join(dtypes),
        matmul_precision=torch.get_float32_matmul_precision(),
        convolution_precision=convolutions() if on_cuda else None,
        autocast_dtype=live_autocast(accelerator),
        dropout_probabilities=tuple(sorted(dropouts)),
        model_class=type(model).__name__,
        attention=str(getattr(model.config, "_attn_implementation", "eager")),
        device=accelerator.device.type,
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        layout={
            **layout_of(loaded),
            "gradient_accumulation_steps": -(-spec.batch_size // micro_size)
            if micro_size
            else spec.gradient_accumulation_steps,
            "data_parallel_ranks": accelerator.num_processes,
        }
        | ({"candidates": "at one place"} if spec.method == "causal" and parts.split.train.words else {})
        | ({"recorded_steps": cuda_graphs.LAYOUT} if spec.cuda_graphs else {})
        | ({"layers_computed_again": again} if (again := n_checkpointed(model)) else {})
        | (
            {"cudnn_attention": "on" if torch.backends.cuda.cudnn_sdp_enabled() else "off"} if on_cuda else {}
        ),
        trained=trained_parameters(model) if optimizer else (),
        adapter=loaded.adapter.settings if loaded.adapter else None,
    )


def _stored(setting: Any) -> Any:
    """A setting of a parameter group as a record can hold it; what is no number is told in words."""
    if isinstance(setting, torch.Tensor):
        setting = setting.item() if setting.numel() == 1 else f"tensor of shape {tuple(setting.shape)}"
    if isinstance(setting, tuple) and not all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in setting
    ):
        return str(setting)
    return str(setting) if isinstance(setting, float) and not math.isfinite(setting) else setting


def with_final_state(
    earlier: ReadBack | None, entry: OptimizerEntry, optimizer: torch.optim.Optimizer
) -> ReadBack | None:
    """What was read back, with the bytes of the state after the last step where nobody promised them."""
    if earlier is None or entry.promises:
        return earlier
    return earlier.model_copy(update={"final_state_bytes": live.state_tensors(optimizer)[1]})


def _facts_without_promises(
    spec: RunSpec, parts: RunParts, optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    """What a record also says about an optimizer without promises, or with groups by role."""
    entry = parts.entry
    facts: dict[str, Any] = {}
    if optimizer is None or entry is None:
        return {}
    if entry.by_role or not entry.promises:
        named = list(parts.loaded.model.named_parameters())
        facts["parameter_groups"] = tuple(
            tuple(sorted({numbers_hidden(name) for name in names}))
            for names in live.parameter_names(optimizer, named)
        )
    if not entry.promises:
        path = parse_arm(spec.optimizer).optimizer
        facts["optimizer_package"] = " ".join(package_of(path))
        facts["optimizer_arguments"] = all_arguments(path, spec.hyperparameters)
    return facts


def _optimizer_facts(optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    if optimizer is None:
        facts: dict[str, Any] = {"optimizer_class": NO_OPTIMIZER, "torch_learning_rate": 0.0}
        return facts | {"param_groups": (), "state_tensors": (), "optimizer_state_bytes": 0}
    names, state_bytes = live.state_tensors(optimizer)
    plain = (int, float, bool, str, tuple, type(None), torch.Tensor)
    return {
        "optimizer_class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        "torch_learning_rate": optimizer.defaults["lr"],
        "param_groups": tuple(
            {key: _stored(value) for key, value in group.items() if isinstance(value, plain)}
            for group in optimizer.param_groups
        ),
        "state_tensors": names,
        "optimizer_state_bytes": state_bytes,
    }
