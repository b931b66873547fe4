from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="qqp",
    title="Quora Question Pairs (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="qqp"),
    test="validation",
    text=("question1", "question2"),
    labels={0: "not_duplicate", 1: "duplicate"},
    template="{question1}{mask}, {question2|lower_first}",
    label_words=("No", "Yes"),
    causal_template="{question1}\n{question2}\nDo these two questions ask the same? Yes or No?\n{candidate}",
    metric="f1",
    further_metrics=("accuracy",),
    licence="Quora's terms (non-commercial)",
    citation="Iyer et al. 2017; prompt: LM-BFF (Gao et al. 2021); causal: ours",
)
