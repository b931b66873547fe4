from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="rte",
    title="Recognizing Textual Entailment (SuperGLUE)",
    source=HubSource(id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="rte"),
    test="validation",
    text=("premise", "hypothesis"),
    labels={0: "entailment", 1: "not_entailment"},
    template="{premise|cut_last}?{mask}, {hypothesis|lower_first}",
    label_words=("Yes", "No"),
    causal_template='{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n{candidate}',
    max_length=256,
    first_limit=240,
    licence="none stated (research)",
    citation="Dagan et al. 2005 to Bentivogli et al. 2009; prompt: LM-BFF (Gao et al.); causal: MeZO",
)
