"""One run as transformers' run_glue_no_trainer example makes it: Accelerate, padding to the longest."""

from __future__ import annotations

import copy

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from baseline import arguments, classifier, report, rows
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    get_scheduler,
)

from momentum_bench.harness.loads import tokenizer_in

EVAL_BATCH = 8


def main() -> None:
    a = arguments(__doc__ or "")
    accelerator = Accelerator(mixed_precision="bf16" if a.bf16 else "no")
    set_seed(a.seed)
    tokenizer = tokenizer_in(a.model)
    raw = {split: rows(a.data, split) for split in ("train", "dev", "test")}
    model = classifier(a.model, max(raw["train"][1]) + 1)

    def processed(split: str) -> Dataset:
        texts, labels = raw[split]
        columns = {f"text{i}": of for i, of in enumerate(texts)}
        names = list(columns)
        return Dataset.from_dict(columns | {"labels": labels}).map(
            lambda rows: tokenizer(*(rows[name] for name in names), truncation=True, max_length=a.max_length),
            batched=True,
            remove_columns=names,
        )

    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if a.bf16 else None)
    train = DataLoader(processed("train"), a.batch_size, shuffle=True, collate_fn=collate)
    dev, test = (DataLoader(processed(split), EVAL_BATCH, collate_fn=collate) for split in ("dev", "test"))
    optimizer = torch.optim.SGD(model.parameters(), lr=a.learning_rate, momentum=a.momentum)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=a.steps)
    model, optimizer, train, dev, test, schedule = accelerator.prepare(
        model, optimizer, train, dev, test, schedule
    )

    def accuracy(of: DataLoader) -> float:
        model.eval()
        right = n = 0
        for batch in of:
            with torch.no_grad():
                predictions = model(**batch).logits.argmax(dim=-1)
            predictions, labels = accelerator.gather_for_metrics((predictions, batch["labels"]))
            right, n = right + int((predictions == labels).sum()), n + len(labels)
        model.train()
        return right / n

    step, best, kept = 0, -1.0, {}
    model.train()
    while step < a.steps:
        for batch in train:
            loss = model(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % a.eval_every == 0 or step == a.steps:
                found = accuracy(dev)
                if found > best:
                    best, kept = found, copy.deepcopy(model.state_dict())
            if step == a.steps:
                break
    model.load_state_dict(kept)
    report(best, accuracy(test))


if __name__ == "__main__":
    main()
