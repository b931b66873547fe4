from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="cb",
    title="CommitmentBank (SuperGLUE)",
    source=HubSource(id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="cb"),
    test="validation",
    text=("premise", "hypothesis"),
    labels={0: "entailment", 1: "contradiction", 2: "neutral"},
    template='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?{mask}.',
    label_words=("Yes", "No", "Maybe"),
    causal_template='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{candidate}',
    max_length=256,
    further_metrics=("macro_f1",),
    licence="research",
    citation="de Marneffe et al. 2019; prompt, causal: MeZO (Malladi et al. 2023), the answer a mask",
)
