"""The type of an image task: a data set, and the network and schedule that learn it from scratch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from momentum_bench.tasks.types.base import BaseTask, check_metrics, digest_of
from momentum_bench.tasks.types.sources import AnySource, HubSource, LocalOnly, SklearnDigits
from momentum_bench.tasks.types.text import Task

AnyMethod = Literal["prompt", "head", "causal", "scratch"]
"""How a model learns a task; a network learns images from scratch."""

_BASIC = {"model_type": "resnet", "layer_type": "basic", "downsample_in_first_stage": False}
RESNET_6: dict[str, Any] = _BASIC | {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
RESNET_32: dict[str, Any] = _BASIC | {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [5, 5, 5]}
"""He et al. 2016, section 4.2, n = 5. The shortcuts are projections where sizes change (their option B)."""
RESNET_50: dict[str, Any] = {"model_type": "resnet"}
"""Transformers' defaults."""


class ImageTask(BaseTask):
    """All that a run from scratch needs to know: images, how they are shown, network and schedule.

    Attributes, next to those of `BaseTask`:
        source: where the images come from without `--data-dir`.
        test: the split that is scored at the end.
        image: the image column of a hub copy.
        n_classes: classes are 0 .. n_classes - 1, in logit order.
        n_train: rows of the train split, by which epochs are turned into steps.
        dev_fraction: the share of each class's train rows that is held out as dev, by seed.
        size: height and width, in pixels, of what the network sees.
        channels: 1 (grey) or 3 (RGB).
        mean, std: of each channel, for pixels in 0 .. 1. The defaults are those of ImageNet.
        augmentation: of training images. `crop` shifts by up to `size / 8` pixels (zeros outside).
            `crop_flip` also mirrors half of them (He et al. 2016, section 4.2). `resized_crop_flip`
            takes a random 8 % to 100 % of the area at aspect ratio 3/4 to 4/3 (Szegedy et al. 2015),
            while dev and test show the centre 7/8 of the scaled image.
        architecture: the fields of the transformers configuration; `model_type` names its class.
        stem: the first layer: one `3x3` convolution with stride 1, for small images (He et al. 2016,
            4.2), or `7x7` with stride 2 and max-pooling, as transformers builds it for ImageNet.
        batch_size, epochs, warmup_epochs, weight_decay: the defaults of the flags.
        decay_epochs: after each of these epochs the learning rate is a tenth of what it was.
    """

    source: SklearnDigits | HubSource | LocalOnly
    test: str = "test"
    image: str = "image"
    n_classes: int = Field(ge=2)
    n_train: int = Field(ge=1)
    dev_fraction: float = Field(default=0.1, gt=0, lt=1)
    size: int = Field(default=224, ge=1)
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    augmentation: Literal["none", "crop", "crop_flip", "resized_crop_flip"] = "none"
    architecture: dict[str, Any]
    stem: Literal["3x3", "7x7"] = "3x3"
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    warmup_epochs: int = Field(default=0, ge=0)
    decay_epochs: tuple[int, ...] = ()
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ImageTask:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"{self.channels} channels need as many means and stds, found {self.mean}, {self.std}"
            )
        if "model_type" not in self.architecture:
            raise ValueError(
                "the architecture names no model_type: give that of a transformers configuration"
            )
        outside = [epoch for epoch in self.decay_epochs if not self.warmup_epochs < epoch < self.epochs]
        if outside or list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(
                f"decay_epochs {self.decay_epochs} must ascend between warm-up ({self.warmup_epochs}) "
                f"and end ({self.epochs})"
            )
        check_metrics(self, "classes", self.n_classes)
        return self

    def source_for(self, protocol: str | None) -> AnySource:
        """The source, which is the same under every protocol."""
        return self.source

    @property
    def methods(self) -> tuple[AnyMethod, ...]:
        """A network learns images from scratch; there is no other method."""
        return ("scratch",)

    @property
    def n_outputs(self) -> int:
        """Outputs of the network: one for each class."""
        return self.n_classes

    @property
    def labels(self) -> dict[int, str]:
        """Stored label -> name, in logit order."""
        return {label: str(label) for label in range(self.n_classes)}

    @property
    def version(self) -> str:
        """See `version_for`."""
        return self.version_for("scratch")

    def version_for(self, method: str) -> str:
        """First 12 hex digits of a SHA-256 of every fact here that can change a result.

        Left out are words for people, fields that have their default, and the defaults of flags, because
        every spec states the flags themselves.
        """
        left_out = {"title", "licence", "citation", "source", "n_train", "learning_rates"}
        left_out |= {"batch_size", "epochs", "warmup_epochs", "decay_epochs", "weight_decay"}
        return digest_of(self.model_dump(mode="json", exclude=left_out, exclude_defaults=True))


AnyTask = Task | ImageTask
"""A task that `--task` may name."""
