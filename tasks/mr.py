from momentum_bench.tasks.types import HubSource, Task

# Uncertain: LM-BFF tests on 2,000 of these 10,662 sentences, and this copy on 1,066 other sentences.
TASK = Task(
    name="mr",
    title="Movie reviews, two classes",
    source=HubSource(
        id="cornell-movie-review-data/rotten_tomatoes", revision="aa13bc287fa6fcab6daf52f0dfb9994269ffea28"
    ),
    test="test",
    text=("text",),
    labels={0: "negative", 1: "positive"},
    template="{text} It was{mask}.",
    label_words=("terrible", "great"),
    first_limit=110,
    licence="none stated",
    citation="Pang & Lee 2005; prompt: LM-BFF (Gao et al. 2021)",
)
