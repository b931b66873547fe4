"""Images: where they come from, and what of them a network is shown."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.images import load_image_data
from momentum_bench.harness.encoding.images import (
    IMAGES_AT_A_TIME,
    ImageSet,
    centre_crop,
    drawn_crop,
    drawn_shift,
    shifted,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.training.scoring import scoring_batches
from momentum_bench.tasks import get_task
from momentum_bench.tasks.types import ImageTask
from tests.helpers.litter import leave_litter

DIGITS = get_task("digits")
CIFAR10 = get_task("cifar10")


def of_pixels(pixels: np.ndarray, **changed) -> TaskData:
    """One image a row, all of the train split."""
    task = DIGITS.model_copy(update=changed)
    rows = [Example((str(i),), i % task.n_classes) for i in range(len(pixels))]
    return TaskData(task, rows, rows, "test", "0" * 16, 0, 0, pixels=pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of ten classes in each split, 12 x 10 pixels."""
    for split in ("train", "test"):
        for label in range(10):
            for number in range(2):
                path = tmp_path / "digits" / split / f"class{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((12, 10), 20 * label + number + (split == "test"), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return tmp_path


def test_the_digits_are_all_there_once():
    data = load_image_data(DIGITS, None)
    positions = [int(row.texts[0]) for row in data.train + data.test]
    assert sorted(positions) == list(range(1797))
    assert len(data.train) == DIGITS.n_train
    assert {row.label for row in data.train} == {row.label for row in data.test} == set(range(10))
    assert data.pixels[0].shape == (8, 8, 1)
    assert data.origin.startswith("scikit-learn ")


def test_the_stated_mean_and_deviation_are_those_of_the_training_digits():
    data = load_image_data(DIGITS, None)
    pixels = np.stack([data.pixels[int(row.texts[0])] for row in data.train]) / 255
    assert DIGITS.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert DIGITS.std == pytest.approx((pixels.std(),), abs=1e-3)


def test_a_folder_of_images_is_read_by_class(folder: Path):
    data = load_image_data(DIGITS, folder)
    assert [row.label for row in data.train] == [label for label in range(10) for _ in range(2)]
    assert data.pixels[int(data.train[5].texts[0])].tolist() == np.full((12, 10, 1), 41).tolist()
    shown = ImageSet(data, data.test, augmented=False).batch([0, 19], 0, torch.device("cpu"))
    assert shown.inputs["pixel_values"].shape == (2, 1, 8, 8)
    assert shown.labels.tolist() == [0, 9]


def test_other_pixels_have_another_fingerprint(folder: Path):
    before = load_image_data(DIGITS, folder).fingerprint
    assert load_image_data(DIGITS, folder).fingerprint == before
    Image.fromarray(np.zeros((12, 10), dtype=np.uint8)).save(folder / "digits/train/class3/1.png")
    assert load_image_data(DIGITS, folder).fingerprint != before


def test_what_other_programs_leave_in_a_folder_is_no_class_and_no_image(folder: Path):
    before = load_image_data(DIGITS, folder)
    leave_litter(folder)
    after = load_image_data(DIGITS, folder)
    assert (after.fingerprint, after.train, after.test) == (before.fingerprint, before.train, before.test)


def test_what_is_wrong_with_a_folder_is_named(folder: Path):
    with pytest.raises(UserError, match=r"no folder .*cifar10.*one folder of images for each class"):
        load_image_data(CIFAR10, folder)
    (folder / "digits/train/class0/0.png").write_bytes(b"no image")
    data = load_image_data(DIGITS, folder)
    with pytest.raises(UserError, match=r"class0.*0\.png: not a readable image"):
        data.pixels[0]
    for path in (folder / "digits/test/class9").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="class9 holds no image"):
        load_image_data(DIGITS, folder)
    (folder / "digits/test/class9").rmdir()
    with pytest.raises(UserError, match=r"expected 10 with the same names"):
        load_image_data(DIGITS, folder)


def test_pixels_are_in_units_of_the_tasks_mean_and_deviation():
    data = of_pixels(np.full((1, 8, 8, 1), 51, dtype=np.uint8), mean=(0.1,), std=(0.5,))
    shown = ImageSet(data, data.train, augmented=False).batch([0], 0, torch.device("cpu"))
    assert shown.inputs["pixel_values"].unique().tolist() == pytest.approx([(51 / 255 - 0.1) / 0.5])


@pytest.mark.parametrize("augmentation", ["crop", "crop_flip", "resized_crop_flip"])
def test_variations_follow_the_generator_alone_and_only_for_training(augmentation: str):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)
    data = of_pixels(pixels, augmentation=augmentation, size=16)
    rows = [0, 1, 2, 3]

    def shown(augmented: bool, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return (
            ImageSet(data, data.train, augmented).batch(rows, 0, torch.device("cpu")).inputs["pixel_values"]
        )

    assert torch.equal(shown(True, 1), shown(True, 1))
    assert not torch.equal(shown(True, 1), shown(True, 2))
    assert torch.equal(shown(False, 1), shown(False, 2))


def test_a_shift_is_a_crop_of_the_image_with_zeros_around_it():
    image = torch.arange(1.0, 65).view(1, 8, 8)
    padded = torch.nn.functional.pad(image, (1,) * 4)
    crops = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        drawn = shifted(image, 1, drawn_shift(1))
        matches = [n for n, crop in enumerate(crops) if torch.equal(crop, drawn)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(9))


@pytest.mark.parametrize("shape", [(3, 40, 30), (3, 30, 300), (3, 7, 7)])
def test_crops_lie_in_the_image_and_the_middle_has_the_size_that_was_asked_for(shape: tuple[int, ...]):
    _, height, width = shape
    for seed in range(20):
        torch.manual_seed(seed)
        if (crop := drawn_crop(height, width)) is not None:
            top, left, h, w = crop
            assert 0 <= top <= top + h <= height
            assert 0 <= left <= left + w <= width
            assert h * w
    assert centre_crop(torch.rand(shape), 24).shape == (3, 24, 24)


@pytest.mark.parametrize("augmented", [True, False])
def test_a_constant_image_stays_constant_under_every_crop(augmented: bool):
    data = of_pixels(
        np.full((3, 50, 40, 1), 51, dtype=np.uint8),
        augmentation="resized_crop_flip",
        size=24,
        mean=(0.0,),
        std=(1.0,),
    )
    shown = ImageSet(data, data.train, augmented).batch([0, 1, 2], 0, torch.device("cpu"))
    pixels = shown.inputs["pixel_values"]
    assert pixels.shape == (3, 1, 24, 24)
    assert torch.allclose(pixels, torch.tensor(0.2), atol=1e-6)


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "resized_crop_flip"])
def test_threads_that_prepare_images_for_a_gpu_change_nothing(augmentation: str):
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES_AT_A_TIME + 9, 20, 16, 1), dtype=np.uint8)
    data = of_pixels(pixels, augmentation=augmentation, size=16)
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(7)
        shown = ImageSet(data, data.train, True)._all_shown(range(len(pixels)), torch.device(device))
        found.append((torch.stack(shown), torch.rand(())))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]  # and nothing more was drawn


def test_an_image_that_a_thread_cannot_read_is_named(folder: Path):
    (folder / "digits/train/class0/0.png").write_bytes(b"no image")
    data = load_image_data(DIGITS, folder)
    with pytest.raises(UserError, match=r"class0.*0\.png: not a readable image"):
        ImageSet(data, data.train, augmented=False)._all_shown([3, 0], torch.device("cuda"))


def test_images_are_scored_256_at_a_time():
    data = of_pixels(np.zeros((600, 8, 8, 1), dtype=np.uint8))
    batches = scoring_batches(ImageSet(data, data.train, augmented=False).lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(600))
    assert [len(batch) for batch in batches] == [256, 256, 88]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean": (0.5, 0.5)}, "1 channels need as many means"),
        ({"architecture": {}}, "names no model_type"),
        ({"decay_epochs": (8, 5)}, "must ascend"),
        ({"decay_epochs": (10,)}, "must ascend between warm-up"),
        ({"sise": 9}, "sise"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changed: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        ImageTask.model_validate(DIGITS.model_dump() | changed)


def test_the_version_follows_what_changes_results_and_nothing_else():
    def version(**changed) -> str:
        return DIGITS.model_copy(update=changed).version

    assert version(title="other", licence="other", epochs=3) == DIGITS.version
    assert len({DIGITS.version, version(size=9), version(augmentation="none"), version(stem="7x7")}) == 4
