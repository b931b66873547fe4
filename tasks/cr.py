from momentum_bench.tasks.types import HubSource, Task

# It is not known whether this copy splits the sentences as LM-BFF does (1,775 / 2,000).
TASK = Task(
    name="cr",
    title="Customer reviews, two classes",
    source=HubSource(id="SetFit/CR", revision="01e427e689e9d3a9097f85eab7a91ce937cf5f98"),
    test="test",
    text=("text",),
    labels={0: "negative", 1: "positive"},
    template="{text} It was{mask}.",
    label_words=("terrible", "great"),
    first_limit=110,
    licence="none stated (research)",
    citation="Hu & Liu 2004; prompt: LM-BFF (Gao et al. 2021)",
)
