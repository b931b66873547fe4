from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="mnli",
    title="Multi-Genre Natural Language Inference, matched (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="mnli"),
    test="validation_matched",
    text=("premise", "hypothesis"),
    labels={2: "contradiction", 0: "entailment", 1: "neutral"},
    template="{premise|cut_last}?{mask}, {hypothesis|lower_first}",
    label_words=("No", "Yes", "Maybe"),
    causal_template='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{candidate}',
    max_length=256,
    first_limit=240,
    licence="OANC and CC BY (see MultiNLI)",
    citation="Williams et al. 2018; prompt: LM-BFF (Gao et al. 2021), limits: MeZO; causal: MeZO's of CB",
)
