"""Tasks of a user's own: one of texts, one of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import write_rows

SOURCE = """\
from momentum_bench import LocalOnly, Task

TASK = Task(
    name="tickets",
    title="Support tickets",
    source=LocalOnly(reason="they are ours"),
    test="test",
    text=("text",),
    labels={"calm": "calm", "urgent": "urgent"},
    template="{text} It was{mask}.",
    label_words=("good", "bad"),
    learning_rates={"head": (0.1, 0.2)},
    licence="ours",
    citation="ours",
)
"""


def ticket_rows(n: int) -> list[dict]:
    words = ("good fun", "terrible plot")
    return [{"text": f"film {i} was {words[i % 2]}", "label": ("calm", "urgent")[i % 2]} for i in range(n)]


def write_rows_of_the_guide(folder: Path) -> None:
    """Rows for the task in the manual's guide (`docs/add-a-task.md`), under `folder`."""
    texts = {"urgent": "Nobody can log in since {}:00.", "calm": "Thank you for ticket {}, all is well."}
    rows = [{"text": "Nobody can log in since noon.", "label": "urgent"}]
    rows += [{"text": texts[name].format(i), "label": name} for i in range(20) for name in texts]
    write_rows(folder / "tickets" / "train.jsonl", rows[:34])
    write_rows(folder / "tickets" / "test.jsonl", rows[34:])


IMAGE_SOURCE = """\
from momentum_bench import ImageTask, LocalOnly

TASK = ImageTask(
    name="shades",
    title="Dark or light squares",
    source=LocalOnly(reason="they are ours"),
    n_classes=2,
    n_train=12,
    size=8,
    channels=1,
    mean=(0.5,),
    std=(0.3,),
    architecture={
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 4,
        "hidden_sizes": [4],
        "depths": [1],
    },
    batch_size=4,
    epochs=1,
    learning_rates={"scratch": (0.1, 0.2)},
    licence="ours",
    citation="ours",
)
"""


def write_shades(folder: Path) -> None:
    """Squares of 8 x 8 pixels, dark or light, as `FOLDER/shades/{train,test}/{dark,light}/*.png`."""
    for split, n in (("train", 6), ("test", 3)):
        for name, grey in (("dark", 40), ("light", 200)):
            place = folder / "shades" / split / name
            place.mkdir(parents=True)
            for i in range(n):
                pixels = np.full((8, 8), grey + 3 * i + (split == "test"), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
