"""From images to batches: the pixels that a network sees, with random variation of training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.images import CENTRE
from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Batch, Encoded
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.encoding.transfer import sent
from momentum_bench.harness.machine import usable_cores
from momentum_bench.tasks.types import ImageTask

TOKENS_OF_AN_IMAGE = 16
"""Scoring batches are cut by tokens, and an image counts as so many: 256 images make 4,096 tokens."""

MOST_THREADS = 16
"""Threads that prepare images for a GPU."""
IMAGES_AT_A_TIME = 512
"""Of a batch, as they were stored: images of 500 x 375 pixels take 0.3 GB."""


class ImageSet:
    """Images of one part of a split, ready for batches: the counterpart of `Encoded`.

    Attributes:
        labels: the classes of n images.
        augmented: whether images are varied at random, from torch's current generator. The loop seeds it
            from (seed, step), so both arms of a pair see the same images.
    """

    n_truncated = 0
    candidates = words = None

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
        images = torch.stack(self._all_shown([self.positions[row] for row in rows], device))
        labels = torch.tensor([self.labels[row] for row in rows])
        return Batch(
            inputs={"pixel_values": sent(images, device)},
            read_at=None,
            targets=None,
            candidates=None,
            words=None,
            labels=sent(labels, device),
        )

    def _all_shown(self, positions: Sequence[int], device: torch.device) -> list[torch.Tensor]:
        """The images as the network sees them, each C x size x size.

        Where a GPU trains, the cores of the host are free, so threads read, decode and scale the images. On
        a CPU runs have the cores. What is random is drawn image by image in both cases, so that the images
        are the same to the bit. Only some images at a time are held as they were stored.
        """
        each: Callable[..., Iterator[Any]] = _threads().map if device.type == "cuda" else map
        at_a_time = IMAGES_AT_A_TIME if device.type == "cuda" else 1
        shown: list[torch.Tensor] = []
        for first in range(0, len(positions), at_a_time):
            stored = list(each(self.pixels.__getitem__, positions[first : first + at_a_time]))
            variations = [self._variation(*pixels.shape[:2]) for pixels in stored]
            shown += each(self._shown, stored, variations)
        return shown

    def _variation(self, height: int, width: int) -> Variation:
        """How the next image is varied, from torch's current generator."""
        how, crop, shift = self.task.augmentation, None, None
        if not self.augmented:
            return Variation()
        if how == "resized_crop_flip":
            crop = drawn_crop(height, width)
        if how in ("crop", "crop_flip"):
            shift = drawn_shift(self.task.size // 8)
        return Variation(crop, shift, how.endswith("flip") and bool(torch.rand(()) < 0.5))

    def _shown(self, pixels: np.ndarray, variation: Variation) -> torch.Tensor:
        """One image as the network sees it, C x size x size."""
        size = self.task.size
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        if variation.crop is not None:
            top, left, height, width = variation.crop
            image = resized(image[:, top : top + height, left : left + width], (size, size))
        elif self.task.augmentation == "resized_crop_flip":
            image = centre_crop(image, size)
        elif image.shape[1:] != (size, size):
            image = resized(image, (size, size))
        image = (image - self._mean) / self._std
        if variation.shift is not None:
            image = shifted(image, size // 8, variation.shift)
        return image.flip(-1) if variation.flip else image


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(usable_cores(), MOST_THREADS), thread_name_prefix="images")


class Variation(NamedTuple):
    """How an image is varied at random.

    Attributes:
        crop: top, left, height and width of the part that is scaled to the task's size; None: the middle of
            the image, or all of it.
        shift: how many pixels it moves up and left, from `drawn_shift`; None: it stays.
        flip: whether left and right are exchanged.
    """

    crop: tuple[int, int, int, int] | None = None
    shift: tuple[int, int] | None = None
    flip: bool = False


def drawn_shift(pixels: int) -> tuple[int, int]:
    """Rows and columns from 0 to twice `pixels`, at random."""
    top, left = torch.randint(0, 2 * pixels + 1, (2,)).tolist()
    return top, left


def shifted(image: torch.Tensor, pixels: int, shift: tuple[int, int]) -> torch.Tensor:
    """A crop of the image's own size, from the image with `pixels` zeros on every side."""
    top, left = shift
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


def drawn_crop(height: int, width: int) -> tuple[int, int, int, int] | None:
    """A random 8 % to 100 % of an image's area at an aspect ratio of 3/4 to 4/3: top, left, height, width.

    As in Szegedy et al. 2015 (section 6). None if ten draws do not fit into the image; its middle is taken
    then.
    """
    for _ in range(10):
        area = height * width * (0.08 + 0.92 * float(torch.rand(())))
        ratio = math.exp((2 * float(torch.rand(())) - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, ()))
            left = int(torch.randint(0, width - w + 1, ()))
            return top, left, h, w
    return None


Examples = Encoded | ImageSet
"""One part of a split, ready for batches."""
