from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="wsc",
    title="Winograd Schema Challenge (SuperGLUE)",
    source=HubSource(
        id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="wsc.fixed"
    ),
    test="validation",
    text=("text", "span1_text", "span2_text"),
    marks=(("span1_text", "span1_index"), ("span2_text", "span2_index")),
    head_text=("{marked}",),
    labels={0: "another", 1: "same"},
    template='{text} In the previous sentence, does the pronoun "{span2_text|lower}" refer to'
    " {span1_text}? Yes or No?{mask}.",
    label_words=("No", "Yes"),
    causal_template='{text}\nIn the previous sentence, does the pronoun "{span2_text|lower}"'
    " refer to {span1_text}? Yes or No?\n{candidate}",
    max_length=256,
    licence="CC BY 4.0",
    citation="Levesque et al. 2012; prompt, causal: MeZO (Malladi et al. 2023), the answer a mask",
)
