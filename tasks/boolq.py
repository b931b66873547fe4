from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="boolq",
    title="BoolQ: yes/no questions on a passage (SuperGLUE)",
    source=HubSource(
        id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="boolq"
    ),
    test="validation",
    text=("passage", "question"),
    labels={0: "no", 1: "yes"},
    template="{passage} {question|upper_first|question_mark}{mask}.",
    label_words=("No", "Yes"),
    causal_template="{passage} {question|upper_first|question_mark}\n{candidate}",
    max_length=256,
    licence="CC BY-SA 3.0",
    citation="Clark et al. 2019; prompt, causal: MeZO (Malladi et al. 2023), the answer a mask",
)
