"""Folders in LM-BFF's layout, with rows of ours in the shape of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

TEXTS = ('plain "quoted" words', "crème brûlée — naïve", "a, b; c", "'single' and \"", "None", "nul\x85l")

# number of cells, and where a row has its texts and its label (last: -1)
TSV: dict[str, tuple[int, tuple[int, ...], int, Sequence[str]]] = {
    "SST-2": (2, (0,), 1, ("0", "1")),
    "CoLA": (4, (3,), 1, ("0", "1")),
    "MRPC": (5, (3, 4), 0, ("0", "1")),
    "QQP": (6, (3, 4), 5, ("0", "1")),
    "STS-B": (10, (7, 8), 9, ("0.4", "2.499", "2.5", "4.750")),
    "MNLI": (12, (8, 9), 11, ("neutral", "entailment", "contradiction")),
    "SNLI": (11, (7, 8), 10, ("neutral", "entailment", "contradiction")),
    "QNLI": (4, (1, 2), 3, ("entailment", "not_entailment")),
    "RTE": (4, (1, 2), 3, ("entailment", "not_entailment")),
    "WNLI": (4, (1, 2), 3, ("0", "1")),
}
CSV = {"sst-5": 5, "mr": 2, "cr": 2, "mpqa": 2, "subj": 2, "trec": 6}


def write_tsv(path: Path, folder: str, n: int, start: str = "", end: str = "\n") -> None:
    """n rows in the shape of one of LM-BFF's TSV files."""
    width, texts, label, labels = TSV[folder]
    lines = [] if folder == "CoLA" else ["\t".join(f"column{i}" for i in range(width))]
    for row in range(n):
        cells = [f"cell{i}" for i in range(width)]
        for i in texts:
            cells[i] = f"{TEXTS[(row + i) % len(TEXTS)]} {row}"
        cells[label] = labels[(row * row + row // 3) % len(labels)]
        lines.append("\t".join(cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((start + "".join(line + end for line in lines)).encode())


def write_all(folder: Path, n_train: int = 60, n_test: int = 30) -> Path:
    for name in TSV:
        # a header's byte-order mark survives; line ends are written as \n whatever they were
        start, end = ("\ufeff" if name == "QNLI" else ""), ("\r\n" if name == "RTE" else "\n")
        for split in ("train", *(("dev_matched", "dev_mismatched") if name == "MNLI" else ("dev",))):
            write_tsv(
                folder / name / f"{split}.tsv", name, n_train if split == "train" else n_test, start, end
            )
    for name, n_classes in CSV.items():
        for split, n in (("train", n_train), ("test", n_test)):
            rows = [
                [i % n_classes, f"{TEXTS[i % len(TEXTS)]} {i}\r\nb" if i % 7 else "None"] for i in range(n)
            ]
            (folder / name).mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(folder / name / f"{split}.csv", header=False, index=False)
    return folder
