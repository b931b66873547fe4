from momentum_bench.tasks.types import HubSource, Task

TASK = Task(
    name="wic",
    title="Word in Context (SuperGLUE)",
    source=HubSource(id="aps/super_glue", revision="3de24cf8022e94f4ee4b9d55a6f539891524d646", config="wic"),
    test="validation",
    text=("sentence1", "sentence2", "word"),
    head_text=("{word}: {sentence1}", "{sentence2}"),
    labels={0: "different", 1: "same"},
    template='Does the word "{word}" have the same meaning in these two sentences? Yes, No?'
    " {sentence1} {sentence2}{mask}.",
    label_words=("No", "Yes"),
    causal_template='Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
    "{sentence1}\n{sentence2}\n{candidate}",
    licence="CC BY-NC 4.0",
    citation="Pilehvar & Camacho-Collados 2019; prompt, causal: MeZO (Malladi et al. 2023)",
)
