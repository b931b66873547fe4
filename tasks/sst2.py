from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="sst2",
    title="Stanford Sentiment Treebank, two classes (GLUE)",
    source=HubSource(id="nyu-mll/glue", revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config="sst2"),
    # LM-BFF has sentences alone, where GLUE has phrases in train
    lmbff_source=HubSource(
        id="SetFit/sst2",
        revision="00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0",
        text=("text",),
        label="label_text",
    ),
    test="validation",
    text=("sentence",),
    labels={0: "negative", 1: "positive"},
    template="{sentence} It was{mask}.",
    label_words=("terrible", "great"),
    licence="none stated",
    citation="Socher et al. 2013; prompt: LM-BFF (Gao et al. 2021)",
)
