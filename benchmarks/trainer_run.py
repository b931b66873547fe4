"""One run by transformers' Trainer with optim=sgd, dynamic padding, and the best checkpoint at the end."""

from __future__ import annotations

import numpy as np
from baseline import arguments, classifier, report, rows
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from momentum_bench.harness.loads import tokenizer_in


def main() -> None:
    a = arguments(__doc__ or "")
    tokenizer = tokenizer_in(a.model)

    def processed(split: str) -> Dataset:
        texts, labels = rows(a.data, split)
        features = tokenizer(*texts, truncation=True, max_length=a.max_length)
        return Dataset.from_dict({**features, "labels": labels})

    train, dev, test = map(processed, ("train", "dev", "test"))
    n_labels = max(train["labels"]) + 1
    settings = TrainingArguments(
        output_dir=str(a.output),
        optim="sgd",
        optim_args=f"momentum={a.momentum}" if a.momentum else None,
        learning_rate=a.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        per_device_train_batch_size=a.batch_size,
        max_steps=a.steps,
        eval_strategy="steps",
        eval_steps=a.eval_every,
        save_strategy="steps",
        save_steps=a.eval_every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        bf16=a.bf16,
        seed=a.seed,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=classifier(a.model, n_labels),
        args=settings,
        train_dataset=train,
        eval_dataset=dev,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {
            "accuracy": float((np.argmax(found.predictions, axis=1) == found.label_ids).mean())
        },
    )
    trainer.train()
    report(trainer.state.best_metric, trainer.evaluate(test)["eval_accuracy"])


if __name__ == "__main__":
    main()
