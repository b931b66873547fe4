from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="sst5",
    title="Stanford Sentiment Treebank, five classes",
    source=HubSource(id="SetFit/sst5", revision="e51bdcd8cd3a30da231967c1a249ba59361279a3"),
    test="test",
    text=("text",),
    labels={0: "very negative", 1: "negative", 2: "neutral", 3: "positive", 4: "very positive"},
    template="{text} It was{mask}.",
    label_words=("terrible", "bad", "okay", "good", "great"),
    first_limit=110,
    licence="none stated",
    citation="Socher et al. 2013; prompt: LM-BFF (Gao et al. 2021)",
)
