"""One run as LM-BFF and MeZO make it: padded to 128, fp32, dev and test at batch 4, best kept on disk."""

from __future__ import annotations

import contextlib

import torch
from baseline import arguments, classifier, report, rows
from torch.utils.data import DataLoader, TensorDataset
from transformers import get_linear_schedule_with_warmup

from momentum_bench.harness.loads import tokenizer_in

EVAL_BATCH = 4


def main() -> None:
    a = arguments(__doc__ or "")
    torch.manual_seed(a.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = tokenizer_in(a.model)

    def dataset(split: str) -> TensorDataset:
        texts, labels = rows(a.data, split)
        features = tokenizer(
            *texts, truncation=True, padding="max_length", max_length=a.max_length, return_tensors="pt"
        )
        return TensorDataset(features["input_ids"], features["attention_mask"], torch.tensor(labels))

    train, dev, test = map(dataset, ("train", "dev", "test"))
    n_labels = int(train.tensors[2].max()) + 1
    model = classifier(a.model, n_labels).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=a.learning_rate, momentum=a.momentum)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, a.steps)

    def scores(batch: list[torch.Tensor]) -> torch.Tensor:
        ids, mask, _ = (x.to(device) for x in batch)
        cast = torch.autocast(device.type, torch.bfloat16) if a.bf16 else contextlib.nullcontext()
        with cast:
            return model(input_ids=ids, attention_mask=mask).logits.float()

    def accuracy(of: TensorDataset) -> float:
        model.eval()
        with torch.no_grad():
            right = sum(
                int((scores(batch).argmax(1).cpu() == batch[2]).sum()) for batch in DataLoader(of, EVAL_BATCH)
            )
        model.train()
        return right / len(of)

    step, best = 0, -1.0
    model.train()
    while step < a.steps:
        for batch in DataLoader(train, a.batch_size, shuffle=True):
            loss = torch.nn.functional.cross_entropy(scores(batch), batch[2].to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            model.zero_grad()
            loss.item()
            step += 1
            if step % a.eval_every == 0 or step == a.steps:
                found = accuracy(dev)
                if found > best:
                    best = found
                    model.save_pretrained(a.output)
            if step == a.steps:
                break
    model = classifier(a.output, n_labels).to(device)
    report(accuracy(dev), accuracy(test))


if __name__ == "__main__":
    main()
