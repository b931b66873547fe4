"""From images to batches: the pixels that a network sees, with random variation of training images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from momentum_bench.harness.cores import usable_cores
from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.images import CENTRE
from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Batch, Encoded
from momentum_bench.harness.encoding.batches_ahead import BatchesAhead, Request
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.encoding.transfer import sent
from momentum_bench.harness.launcher import ranks_here
from momentum_bench.tasks.types import ImageTask

TOKENS_OF_AN_IMAGE = 16
"""Scoring batches are cut by tokens, and an image counts as so many: 256 images make 4,096 tokens."""

IMAGES_OF_A_THREAD = 8
"""So many images for each thread are decoded at a time, which bounds the memory of decoded images."""

Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of an image."""


class Variation(NamedTuple):
    """How one image is shown.

    Attributes:
        shift: top and left of a crop of the padded image; None: the image is not shifted.
        box: the part that is shown; None: the middle.
        flipped: left and right are exchanged.
    """

    shift: tuple[int, int] | None = None
    box: Box | None = None
    flipped: bool = False


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
        self._ahead: BatchesAhead | None = None
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (task.mean, task.std))

    def batch(
        self, rows: Sequence[int], pad_id: int, device: torch.device, packing: Packing | None = None
    ) -> Batch:
        """The images at `rows`: B x C x H x W in units of the task's mean and std.

        Args:
            pad_id, packing: for text; without effect here.
        """
        waiting = self._ahead.taken(rows) if self._ahead else None
        images = self._shown(rows, device) if waiting is None else waiting
        labels = torch.tensor([self.labels[row] for row in rows])
        return Batch(
            inputs={"pixel_values": sent(images, device)},
            read_at=None,
            targets=None,
            candidates=None,
            labels=sent(labels, device),
        )

    @contextmanager
    def made_ahead(self, requests: Iterator[Request], device: torch.device) -> Iterator[None]:
        """Inside, the images of the next batch are made while the device computes; one batch at a time.

        They are the images that `batch` would make then, to the bit. On a CPU none are made ahead, because
        the cores compute.

        Args:
            requests: the batches that will be asked for, in their order.
        """
        if device.type == "cpu":
            yield
            return
        ended = Event()

        def make(rows: Sequence[int], generator: torch.Generator) -> torch.Tensor:
            return self._shown(rows, device, generator, ended)

        self._ahead = BatchesAhead(make, requests)
        try:
            yield
        finally:
            ended.set()
            self._ahead.close()
            self._ahead = None

    def _shown(
        self,
        rows: Sequence[int],
        device: torch.device,
        generator: torch.Generator | None = None,
        ended: Event | None = None,
    ) -> torch.Tensor:
        """The images at `rows` as the network sees them, on the CPU: B x C x size x size.

        Where a device computes, the cores are free, and threads read and vary the images. All random draws
        are made here, one image after the other, so that they do not depend on the number of threads.

        Args:
            generator: where the draws come from; None: torch's own.
            ended: if this is set meanwhile, nobody waits for the images, and the rest is left out.
        """
        shown = np.empty((len(rows), self.task.channels, self.task.size, self.task.size), dtype=np.float32)
        places = [self.positions[row] for row in rows]
        if device.type == "cpu":
            for at, place in enumerate(places):
                pixels = np.array(self.pixels[place])
                self._show(pixels, self._variation(pixels, generator), shown[at])
            return torch.from_numpy(shown)
        n_threads = max(1, usable_cores() // ranks_here())
        at_a_time = IMAGES_OF_A_THREAD * n_threads
        with ThreadPoolExecutor(n_threads, "images") as threads:
            for start in range(0, len(rows), at_a_time):
                if ended is not None and ended.is_set():
                    break
                read = threads.map(
                    lambda place: np.array(self.pixels[place]), places[start : start + at_a_time]
                )
                made = [
                    threads.submit(self._show, pixels, self._variation(pixels, generator), shown[start + i])
                    for i, pixels in enumerate(read)
                ]
                for one in made:
                    one.result()
        return torch.from_numpy(shown)

    def _variation(self, pixels: np.ndarray, generator: torch.Generator | None) -> Variation:
        """Draw how an image (H x W x C) is varied."""
        if not self.augmented:
            return Variation()
        shift, box, how = None, None, self.task.augmentation
        if how == "resized_crop_flip":
            box = draw_box(pixels.shape[0], pixels.shape[1], generator)
        elif how in ("crop", "crop_flip"):
            shift = draw_shift(self.task.size // 8, generator)
        flipped = how.endswith("flip") and bool(torch.rand((), generator=generator) < 0.5)
        return Variation(shift, box, flipped)

    def _show(self, pixels: np.ndarray, varied: Variation, place: np.ndarray) -> None:
        """Write one image (H x W x C) as the network sees it to its place (C x size x size)."""
        task = self.task
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        if task.augmentation == "resized_crop_flip":
            image = cropped(image, varied.box, task.size)
        elif image.shape[1:] != (task.size, task.size):
            image = resized(image, (task.size, task.size))
        image = (image - self._mean) / self._std
        if varied.shift is not None:
            image = shifted(image, task.size // 8, varied.shift)
        place[:] = (image.flip(-1) if varied.flipped else image).numpy()


def draw_shift(pixels: int, generator: torch.Generator | None = None) -> tuple[int, int]:
    """Top and left of a random crop of an image with `pixels` zeros on every side."""
    top, left = torch.randint(0, 2 * pixels + 1, (2,), generator=generator).tolist()
    return top, left


def shifted(image: torch.Tensor, pixels: int, place: tuple[int, int]) -> torch.Tensor:
    """A crop of the image's own size at `place`, from the image with `pixels` zeros on every side."""
    top, left = place
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


def draw_box(height: int, width: int, generator: torch.Generator | None = None) -> Box | None:
    """A random 8 % to 100 % of an image's area at an aspect ratio of 3/4 to 4/3.

    As in Szegedy et al. 2015 (section 6). None, if ten draws do not fit into the image.
    """

    def uniform() -> float:
        return float(torch.rand((), generator=generator))

    area = height * width
    for _ in range(10):
        part = area * (0.08 + 0.92 * uniform())
        ratio = math.exp((2 * uniform() - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(part * ratio)), round(math.sqrt(part / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (), generator=generator))
            left = int(torch.randint(0, width - w + 1, (), generator=generator))
            return top, left, h, w
    return None


def cropped(image: torch.Tensor, box: Box | None, size: int) -> torch.Tensor:
    """That part of the image (C x H x W), scaled to size x size; without a box, its middle."""
    if box is None:
        return centre_crop(image, size)
    top, left, height, width = box
    return resized(image[:, top : top + height, left : left + width], (size, size))


Examples = Encoded | ImageSet
"""One part of a split, ready for batches."""
