from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="snli",
    title="Stanford Natural Language Inference",
    source=HubSource(id="stanfordnlp/snli", revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b"),
    test="validation",
    text=("premise", "hypothesis"),
    labels={2: "contradiction", 0: "entailment", 1: "neutral"},
    unlabelled="drop",  # the annotators did not agree on these pairs
    template="{premise|cut_last}?{mask}, {hypothesis|lower_first}",
    label_words=("No", "Yes", "Maybe"),
    causal_template='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{candidate}',
    max_length=256,
    licence="CC BY-SA 4.0",
    citation="Bowman et al. 2015; prompt: LM-BFF (Gao et al. 2021); causal: MeZO's of CB",
)
