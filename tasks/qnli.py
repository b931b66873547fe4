from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="qnli",
    title="Question-answering Natural Language Inference (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="qnli"),
    test="validation",
    text=("question", "sentence"),
    labels={0: "entailment", 1: "not_entailment"},
    template="{question|cut_last}?{mask}, {sentence|lower_first}",
    label_words=("Yes", "No"),
    causal_template='{sentence}\nDoes this answer the question "{question}"? Yes or No?\n{candidate}',
    licence="CC BY-SA 4.0 (SQuAD)",
    citation="Rajpurkar et al. 2016, Wang et al. 2019; prompt: LM-BFF (Gao et al. 2021); causal: ours",
)
