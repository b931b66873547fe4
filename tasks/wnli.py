from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="wnli",
    title="Winograd Natural Language Inference (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="wnli"),
    test="validation",
    text=("sentence1", "sentence2"),
    labels={0: "not_entailment", 1: "entailment"},
    template="{sentence1|cut_last}?{mask}, {sentence2|lower_first}",
    label_words=("No", "Yes"),
    causal_template='{sentence1}\nDoes this mean that "{sentence2}" is true? Yes or No?\n{candidate}',
    licence="CC BY 4.0 (Winograd schemas)",
    citation="Levesque et al. 2012, Wang et al. 2019; prompt: ours; causal: MeZO's of RTE",
)
