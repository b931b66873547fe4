from momentum_bench.tasks.types import HubSource, Task

# The hub's copy is a script, which `datasets` >= 4 does not run, so this is its Parquet conversion.
TASK = Task(
    name="trec",
    title="TREC question classification, six coarse classes",
    source=HubSource(id="CogComp/trec", revision="65752bf53af25bc935a0dce92fb5b6c930728450"),
    test="test",
    text=("text",),
    label="coarse_label",
    labels={2: "DESC", 1: "ENTY", 0: "ABBR", 3: "HUM", 4: "LOC", 5: "NUM"},
    template="{mask}: {text}",
    label_words=("Description", "Entity", "Expression", "Human", "Location", "Number"),
    causal_template="Question: {text}\nAnswer type: {candidate}",
    first_limit=110,
    licence="none stated",
    citation="Li & Roth 2002; prompt: LM-BFF (Gao et al. 2021); causal: ours",
)
