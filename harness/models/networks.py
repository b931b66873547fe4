"""Networks that are trained from scratch: built from a task's configuration, drawn from a run's seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.tasks.types import ImageTask

if TYPE_CHECKING:
    import torch


def build_network(task: ImageTask) -> Any:
    """The network of the task, with weights drawn from torch's current generator.

    Raises:
        UserError: transformers cannot build the architecture for images.
    """
    fields = dict(task.architecture)
    try:
        config = loads.config_of_type(
            fields.pop("model_type"), **fields, num_channels=task.channels, num_labels=task.n_classes
        )
        model = loads.untrained_model("image_classifier", config)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{task.name}: transformers cannot build its architecture: {first_line(error)}"
        ) from error
    if task.stem == "3x3":
        _small_stem(task, model)
    return model


def _small_stem(task: ImageTask, model: Any) -> None:
    """Replace the first layer, which divides height and width by 4, with one that keeps them."""
    from torch import nn

    embedder = getattr(getattr(model, "resnet", None), "embedder", None)
    if embedder is None:
        raise UserError(f"{task.name}: a 3x3 stem is for model_type resnet; use stem 7x7 to keep its own")
    old = embedder.embedder.convolution
    new = nn.Conv2d(old.in_channels, old.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as in transformers
    embedder.embedder.convolution = new
    embedder.pooler = nn.Identity()


def load_network(task: ImageTask) -> LoadedModel:
    """The network as a run's model: all of it is new, so `draw_network` comes before every run."""
    model = build_network(task)
    return LoadedModel(
        model=model,
        pristine={name: value.clone() for name, value in model.state_dict().items()},
        new_parameters=tuple(name for name, _ in model.named_parameters()),
        vocabulary_head=None,
        why_padded="",
    )


def draw_network(model: torch.nn.Module, task: ImageTask, seed: int) -> None:
    """Draw all weights again from the seed alone, as transformers does; running statistics start over."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = build_network(task).state_dict()
        for name, value in model.state_dict().items():
            value.copy_(fresh[name])
