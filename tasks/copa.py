from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="copa",
    title="Choice of Plausible Alternatives (SuperGLUE)",
    kind="multiple_choice",
    source=HubSource(id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="copa"),
    test="validation",
    text=("premise", "question"),
    choices=("choice1", "choice2"),
    wordings={"question": {"cause": "because", "effect": "so"}},
    cut=("premise",),
    labels={0: "choice1", 1: "choice2"},
    head_text=("{premise|cut_period} {question}", "{candidate|lower_first_word}"),
    causal_template="{premise|cut_period} {question} {candidate|lower_first_word}",
    licence="BSD-2-Clause",
    citation="Roemmele et al. 2011; head: ours; causal: MeZO (Malladi et al. 2023)",
)
