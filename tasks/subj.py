from momentum_bench.tasks.types import HubSource, Task

# This copy numbers the classes in the other order, so its label names are read. It is not known
# whether it splits the 10,000 sentences as LM-BFF does.
TASK = Task(
    name="subj",
    title="Subjective or objective sentences",
    source=HubSource(
        id="SetFit/subj", revision="f3c1162e678417f664d76b21864fdb87b0615fcf", label="label_text"
    ),
    test="test",
    text=("text",),
    labels={0: "subjective", 1: "objective"},
    template="{text} This is{mask}.",
    label_words=("subjective", "objective"),
    first_limit=110,
    licence="none stated",
    citation="Pang & Lee 2004; prompt: LM-BFF (Gao et al. 2021)",
)
