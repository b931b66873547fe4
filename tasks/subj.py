from momentum_bench.tasks.types import HubSource, Task

# Uncertain: this copy numbers the classes the other way round, so its label names are read; its
# split of the 10,000 sentences is not known to be LM-BFF's.
TASK = Task(
    name="subj",
    title="Subjective or objective sentences",
    source=HubSource(id="SetFit/subj", label="label_text"),
    test="test",
    text=("text",),
    labels={0: "subjective", 1: "objective"},
    template="{text} This is{mask}.",
    label_words=("subjective", "objective"),
    first_limit=110,
    licence="none stated",
    citation="Pang & Lee 2004; prompt: LM-BFF (Gao et al. 2021)",
)
