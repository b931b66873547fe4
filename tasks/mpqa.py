from momentum_bench.tasks.types import LocalOnly, Task

TASK = Task(
    name="mpqa",
    title="MPQA opinion phrases, two classes",
    source=LocalOnly(reason="no copy on the hub is known to be LM-BFF's"),
    test="test",
    text=("text",),
    labels={0: "negative", 1: "positive"},
    template="{text} It was{mask}.",
    label_words=("terrible", "great"),
    first_limit=110,
    licence="MPQA's terms (research)",
    citation="Wiebe et al. 2005; prompt: LM-BFF (Gao et al. 2021)",
)
