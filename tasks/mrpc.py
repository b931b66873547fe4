from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="mrpc",
    title="Microsoft Research Paraphrase Corpus (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="mrpc"),
    test="validation",
    text=("sentence1", "sentence2"),
    labels={0: "not_equivalent", 1: "equivalent"},
    template="{sentence1}{mask}, {sentence2|lower_first}",
    label_words=("No", "Yes"),
    causal_template="{sentence1}\n{sentence2}\nDo these two sentences mean the same? Yes or No?\n{candidate}",
    metric="f1",
    further_metrics=("accuracy",),
    licence="Microsoft Research licence",
    citation="Dolan & Brockett 2005; prompt: LM-BFF (Gao et al. 2021); causal: ours",
)
