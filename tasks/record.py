from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="record",
    title="Reading Comprehension with Commonsense Reasoning (SuperGLUE)",
    kind="multiple_choice",
    source=HubSource(
        id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="record"
    ),
    test="validation",
    text=("passage", "query"),
    groups=("passage",),
    choices=("entities",),
    cloze="query",
    label="answers",
    head_text=("{passage|highlights}", "{candidate}"),
    causal_template="{passage|highlights}\n- {candidate}",
    max_length=512,
    metric="answer_f1",
    further_metrics=("answer_exact_match",),
    licence="Apache-2.0 (annotations); CNN and Daily Mail (text)",
    citation="Zhang et al. 2018; head: ours; causal: MeZO (Malladi et al. 2023)",
)
