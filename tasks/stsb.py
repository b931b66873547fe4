from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="stsb",
    title="Semantic Textual Similarity Benchmark, scores 0 to 5 (GLUE)",
    kind="regression",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="stsb"),
    test="validation",
    text=("sentence1", "sentence2"),
    labels={0: "unlike", 5: "alike"},
    balance_at=2.5,
    template="{sentence1}{mask}, {sentence2|lower_first}",
    label_words=("No", "Yes"),
    causal_template="{sentence1}\n{sentence2}\nDo these two sentences mean the same? Yes or No?\n{candidate}",
    metric="pearsonr",
    further_metrics=("spearmanr", "pearson_spearman"),
    licence="scores CC BY-SA 4.0; texts various",
    citation="Cer et al. 2017; prompt: LM-BFF (Gao et al. 2021); causal: ours",
)
