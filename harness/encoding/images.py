"""From images to batches: the pixels that a network sees, with random variation of training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.images import CENTRE
from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Batch, Encoded
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.encoding.transfer import sent
from momentum_bench.tasks.types import ImageTask

TOKENS_OF_AN_IMAGE = 16
"""Scoring batches are cut by tokens, and an image counts as so many: 256 images make 4,096 tokens."""


class ImageSet:
    """Images of one part of a split, ready for batches: the counterpart of `Encoded`.

    Attributes:
        labels: the classes of n images.
        augmented: whether images are varied at random, from torch's current generator. The loop seeds it
            from (seed, step), so both arms of a pair see the same images.
    """

    n_truncated = 0
    candidates = None

    def __init__(self, data: TaskData, rows: Sequence[Example], augmented: bool):
        assert isinstance(data.task, ImageTask)
        self.task = task = data.task
        self.pixels, self.augmented = data.pixels, augmented
        self.positions = [int(row.texts[0]) for row in rows]
        self.labels = [int(row.label) for row in rows]
        self.lengths = [TOKENS_OF_AN_IMAGE] * len(rows)
        self.references = References([*self.labels], None, None)
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (task.mean, task.std))

    def batch(
        self, rows: Sequence[int], pad_id: int, device: torch.device, packing: Packing | None = None
    ) -> Batch:
        """The images at `rows`: B x C x H x W in units of the task's mean and std.

        Args:
            pad_id, packing: for text; without effect here.
        """
        images = torch.stack([self._shown(self.pixels[self.positions[row]]) for row in rows])
        labels = torch.tensor([self.labels[row] for row in rows])
        return Batch(
            inputs={"pixel_values": sent(images, device)},
            read_at=None,
            targets=None,
            candidates=None,
            labels=sent(labels, device),
        )

    def _shown(self, pixels: np.ndarray) -> torch.Tensor:
        """One image as the network sees it, C x size x size."""
        task = self.task
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        how = task.augmentation
        if how == "resized_crop_flip":
            image = random_resized_crop(image, task.size) if self.augmented else centre_crop(image, task.size)
        elif image.shape[1:] != (task.size, task.size):
            image = resized(image, (task.size, task.size))
        image = (image - self._mean) / self._std
        if self.augmented and how in ("crop", "crop_flip"):
            image = shifted(image, task.size // 8)
        if self.augmented and how.endswith("flip") and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image


def shifted(image: torch.Tensor, pixels: int) -> torch.Tensor:
    """A random crop of the image's own size, from the image with `pixels` zeros on every side."""
    top, left = torch.randint(0, 2 * pixels + 1, (2,)).tolist()
    padded = functional.pad(image, (pixels,) * 4)
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The image (C x H x W) scaled to (height, width), bilinear with antialiasing."""
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def centre_crop(image: torch.Tensor, size: int) -> torch.Tensor:
    """The middle size x size pixels of the image after its shorter side was scaled to `size / CENTRE`."""
    height, width = image.shape[1:]
    scale = size / CENTRE / min(height, width)
    image = resized(image, (max(size, round(height * scale)), max(size, round(width * scale))))
    top, left = ((side - size) // 2 for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def random_resized_crop(image: torch.Tensor, size: int) -> torch.Tensor:
    """A random 8 % to 100 % of the area at an aspect ratio of 3/4 to 4/3, scaled to size x size.

    As in Szegedy et al. 2015 (section 6). If ten draws do not fit into the image, its middle is taken.
    """
    height, width = image.shape[1:]
    for _ in range(10):
        area = height * width * (0.08 + 0.92 * float(torch.rand(())))
        ratio = math.exp((2 * float(torch.rand(())) - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, ()))
            left = int(torch.randint(0, width - w + 1, ()))
            return resized(image[:, top : top + h, left : left + w], (size, size))
    return centre_crop(image, size)


Examples = Encoded | ImageSet
"""One part of a split, ready for batches."""
