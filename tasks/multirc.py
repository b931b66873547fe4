from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="multirc",
    title="Multi-Sentence Reading Comprehension, answers judged one by one (SuperGLUE)",
    source=HubSource(
        id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="multirc"
    ),
    test="validation",
    text=("paragraph", "question", "answer"),
    groups=("paragraph", "question"),
    head_text=("{paragraph}", "{question} {answer}"),
    labels={0: "No", 1: "Yes"},
    template='{paragraph} Question: {question} I found this answer "{answer}".'
    " Is that correct? Yes or No?{mask}.",
    causal_template='{paragraph}\nQuestion: {question}\nI found this answer "{answer}".'
    " Is that correct? Yes or No?\n{candidate}",
    max_length=512,
    metric="f1_a",
    further_metrics=("question_exact_match", "f1_m"),
    licence="research",
    citation="Khashabi et al. 2018; prompt, causal: MeZO (Malladi et al. 2023); head: ours",
)
