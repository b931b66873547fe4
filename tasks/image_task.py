"""The type of an image task: a data set, and the network and schedule that it is trained with from scratch.

Data only, like `tasks.task`; no torch here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from momentum_bench.tasks.task import HubSource, Task, _Data

AnyMethod = Literal["prompt", "head", "causal", "scratch"]
"""How a model learns a task; images are learnt from scratch."""

_BASIC = {"model_type": "resnet", "layer_type": "basic", "downsample_in_first_stage": False}
RESNET_6: dict[str, Any] = _BASIC | {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
RESNET_32: dict[str, Any] = _BASIC | {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [5, 5, 5]}
"""He et al. 2016, section 4.2, n = 5; the shortcuts are projections where sizes change (their option B)."""
RESNET_50: dict[str, Any] = {"model_type": "resnet"}
"""Transformers' defaults."""


class SklearnDigits(_Data):
    """The 1,797 handwritten digits that scikit-learn carries (8 x 8, 17 grey levels), from its package.

    They have no test split of their own: the rows whose position is divisible by `test_every` are test.
    """

    test_every: int = Field(default=4, ge=2)


class ImageTask(_Data):
    """What a run from scratch needs to know: the images, how they are shown, the network, the schedule.

    Attributes:
        name: the value of `--task`, equal to the name of the file.
        source: where the images come from when no `--data-dir` is given.
        train, test: the splits that play the two roles; dev is always cut from train.
        image, label: the columns of a hub copy.
        n_classes: classes are 0 .. n_classes - 1, in logit order.
        n_train: rows of the train split, from which epochs are turned into steps.
        dev_fraction: the share of each class's train rows that is held out as dev, by seed.
        size: height and width in pixels of what the network sees.
        channels: 1 (grey) or 3 (RGB).
        mean, std: of each channel, for pixels in 0 .. 1; those of ImageNet unless stated.
        augmentation: of training images. `crop` shifts by up to `size / 8` pixels (zeros outside);
            `crop_flip` mirrors half of them as well (He et al. 2016, section 4.2); `resized_crop_flip`
            takes a random 8 % to 100 % of the area at aspect ratio 3/4 to 4/3 (Szegedy et al. 2015),
            while dev and test show the centre 7/8 of the image scaled.
        architecture: the fields of the transformers configuration; `model_type` names its class.
        stem: the first layer: one `3x3` convolution with stride 1, for small images (He et al. 2016,
            4.2), or `7x7` with stride 2 and max-pooling, as transformers builds it for ImageNet.
        batch_size, epochs, warmup_epochs, weight_decay: the defaults of the flags.
        decay_epochs: after each of these the learning rate is a tenth of what it was.
        licence, citation: of the data.

    What stands below the fields is the same for all images, under the names that tasks of text use.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    source: SklearnDigits | HubSource
    train: str = "train"
    test: str = "test"
    image: str = "image"
    label: str = "label"
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
    licence: str
    citation: str

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
        return self

    kind: ClassVar[str] = "classification"
    methods: ClassVar[tuple[AnyMethod, ...]] = ("scratch",)
    metric: ClassVar[str] = "accuracy"
    further_metrics: ClassVar[tuple[str, ...]] = ()
    label_words: ClassVar[tuple[str, ...]] = ()
    choices: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[tuple[str, ...]] = ()
    balance_at: ClassVar[None] = None
    accumulates_shuffles: ClassVar[bool] = False
    learning_rates: ClassVar[dict[str, tuple[float, ...]]] = {}

    @property
    def labels(self) -> dict[int, str]:
        """Stored label -> name, in logit order."""
        return {label: str(label) for label in range(self.n_classes)}

    @property
    def version(self) -> str:
        """See `version_for`."""
        return self.version_for("scratch")

    def version_for(self, method: str) -> str:
        """Digest of what can change a result beside the flags' defaults, which every spec states itself."""
        left_out = {"title", "licence", "citation", "source", "n_train"}
        left_out |= {"batch_size", "epochs", "warmup_epochs", "decay_epochs", "weight_decay"}
        facts = self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


AnyTask = Task | ImageTask
"""What `--task` may name."""
