"""A run in progress as one safetensors file, from which it goes on to the same record, bit for bit.

Accelerate's `save_state` is not used, because it pickles random states and whatever is registered with
it; to read them back it unpickles, which runs code from the file. No random state needs saving here,
because everything random is a function of seed and step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import xxhash
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from momentum_bench.harness.data.task_kinds import Prediction
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.trainable import trained_state
from momentum_bench.harness.optimizers.partnered import Partnered
from momentum_bench.harness.records.environment import environment
from momentum_bench.harness.records.files import replacing_checkpoint
from momentum_bench.harness.records.schema import Evaluation, ReadBack, RunSpec, Stored, canonical_json
from momentum_bench.harness.sharded_tensors import whole
from momentum_bench.harness.training.progress import Progress

PLAIN = (bool, int, float, str, type(None))


class _Header(Stored):
    """The part of the file that is not tensors.

    Attributes:
        spec, environment, device: those of the run; another one would not go on to the same bits.
        param_groups, state, attributes: the optimizer's plain values.
        on_cpu: names of the tensors that lay on the CPU, wherever the model was.
        tensors_hash: `hash_of` the tensors.
    """

    spec: RunSpec
    environment: dict[str, str]
    device: str
    n_steps: int
    micro_batch_size: int
    forward_backward_passes: int = 0
    evaluations: tuple[Evaluation, ...]
    best_predictions: tuple[Prediction, ...]
    read_back: ReadBack
    seconds: float
    dev_seconds: float
    param_groups: tuple[dict[str, Any], ...]
    state: tuple[dict[str, Any], ...]
    attributes: dict[str, Any]
    on_cpu: tuple[str, ...]
    tensors_hash: str


IN_HEADER = sorted({field.name for field in fields(Progress)} & set(_Header.model_fields))
"""The fields of a run's progress that are plain values; its other fields are tensors."""

PER_STEP = ("losses", "gradient_norms")
"""Lists of a scalar for each step, stored as one tensor each."""


def save(
    path: Path, spec: RunSpec, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write a checkpoint in place of the last one, atomically.

    Raises:
        UserError: the optimizer keeps something that is neither a tensor nor a plain value.
    """
    states = [optimizer.state.get(p, {}) for p in _parameters(optimizer)]
    tensors = {f"model/{name}": value for name, value in trained_state(model).items()}
    for number, state in enumerate(states):
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
    tensors |= {f"best/{name}": value for name, value in progress.best_parameters.items()}
    for name in PER_STEP:
        if steps := getattr(progress, name):
            tensors[name] = torch.stack(steps)
    on_cpu = tuple(name for name, value in tensors.items() if value.device.type == "cpu")
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = _Header(
        spec=spec,
        environment=environment(),
        device=_device(model),
        **{name: getattr(progress, name) for name in IN_HEADER},
        param_groups=tuple(
            _plain(spec, {name: value for name, value in group.items() if name != "params"})
            for group in optimizer.param_groups
        ),
        state=tuple(
            _plain(spec, {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)})
            for state in states
        ),
        attributes=_plain(spec, _own_attributes(optimizer)),
        on_cpu=on_cpu,
        tensors_hash=hash_of(tensors),
    )
    text = canonical_json(header.model_dump(mode="json"))
    with replacing_checkpoint(path) as name:
        save_file(tensors, name, {"progress": text, "checksum": _checksum(text)})


def load(
    path: Path,
    spec: RunSpec,
    micro_batch_size: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Progress | None:
    """Set model and optimizer to the last checkpoint; returns what the run had then.

    Returns None and changes nothing where there is no checkpoint. So it does, with a message, where the
    checkpoint is damaged, or is one of another run, layout, version or device: it would not go on to the
    same bits.
    """
    if not path.exists():
        return None
    header, tensors = _read(path)
    wanted = (spec, environment(), _device(model), micro_batch_size)
    if not header or wanted != (header.spec, header.environment, header.device, header.micro_batch_size):
        what = "of another run, layout, version or device" if header else "not whole"
        print(f"{spec.label}: its checkpoint is {what}; starting over", file=sys.stderr)
        return None
    device = next(model.parameters()).device
    tensors = {name: t if name in header.on_cpu else t.to(device) for name, t in tensors.items()}
    with torch.no_grad():
        for name, value in trained_state(model).items():
            value.copy_(tensors[f"model/{name}"])
    for group, values in zip(optimizer.param_groups, header.param_groups, strict=True):
        group.update(_with_tuples(values))
    for name, value in _with_tuples(header.attributes).items():
        *place, last = name.split(".")
        setattr(attrgetter(place[0])(optimizer) if place else optimizer, last, value)
    for number, (parameter, values) in enumerate(zip(_parameters(optimizer), header.state, strict=True)):
        # not by `load_state_dict`, because that casts state to the parameter's dtype
        state = dict(_below(f"optimizer/{number}/", tensors)) | _with_tuples(values)
        if state:
            optimizer.state[parameter] = state
    progress = Progress(**{name: getattr(header, name) for name in IN_HEADER})
    progress.evaluations = list(header.evaluations)
    progress.best_parameters = dict(_below("best/", tensors))
    for name in PER_STEP:
        setattr(progress, name, list(tensors[name].unbind()) if name in tensors else [])
    return progress


def _read(path: Path) -> tuple[_Header | None, dict[str, torch.Tensor]]:
    """The header and the tensors of a file; no header where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            # clones, because a tensor as it is read is a view of the file, which the next checkpoint replaces
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header = _Header.model_validate_json(facts["progress"])
        is_whole = facts["checksum"] == _checksum(facts["progress"]) and header.tensors_hash == hash_of(
            tensors
        )
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError, TypeError):
        return None, {}
    return (header, tensors) if is_whole else (None, {})


def _checksum(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


def hash_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """xxh3-128 over names and bytes, in the order of the names, as 32 hex digits.

    A sharded tensor counts whole, so all ranks call this together.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(whole(tensors[name]).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _device(model: torch.nn.Module) -> str:
    return next(model.parameters()).device.type


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _own_attributes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The attributes that an optimizer has beyond those of every torch optimizer."""
    common = vars(torch.optim.SGD([torch.zeros(1)], lr=1.0))
    own = {name: value for name, value in vars(optimizer).items() if name not in common}
    if isinstance(optimizer, Partnered):  # groups and state are shared; the rest is that of the two
        own = {
            f"{part}.{name}": value
            for part in ("first", "partner")
            for name, value in _own_attributes(own[part]).items()
        }
    return own


def _plain(spec: RunSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values themselves. Raises: UserError, if JSON cannot hold one of them."""
    for name, value in values.items():
        parts = value if isinstance(value, tuple | list) else (value,)
        if not all(isinstance(part, PLAIN) for part in parts):
            raise UserError(
                f"--checkpoint-every: the optimizer {spec.optimizer} keeps a {type(value).__name__} in "
                f"{name}, and a checkpoint holds tensors in `state` and plain values: leave the flag out"
            )
    return dict(values)


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    return [(name[len(prefix) :], value) for name, value in tensors.items() if name.startswith(prefix)]
