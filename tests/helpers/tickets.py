"""A task of a user's own."""

from __future__ import annotations

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
