from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="cola",
    title="Corpus of Linguistic Acceptability (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="cola"),
    test="validation",
    text=("sentence",),
    labels={0: "unacceptable", 1: "acceptable"},
    template="{sentence} This is{mask}.",
    label_words=("incorrect", "correct"),
    metric="matthews_correlation",
    accumulates_shuffles=True,
    licence="texts under their own copyright; research use",
    citation="Warstadt et al. 2018; prompt: LM-BFF (Gao et al. 2021)",
)
