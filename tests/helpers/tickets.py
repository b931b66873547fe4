"""A task of a user's own."""

from __future__ import annotations

from pathlib import Path

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
