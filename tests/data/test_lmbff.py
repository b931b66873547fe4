"""LM-BFF's own files: read as they are, and its k-shot files drawn again byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momentum_bench.harness.data.export import jsonl_texts, lmbff_texts
from momentum_bench.harness.data.lmbff import LAYOUTS
from momentum_bench.harness.data.load import load_task_data, missing_data
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.data.text_rows import stored_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import get_task, task_names
from tests.helpers.command_line import run_command
from tests.helpers.lmbff import CSV, TSV, write_all, write_tsv

SEEDS = (100, 13, 21, 42, 87)
KNOWN = [name for name in LAYOUTS if name in task_names()]


def stored_lists(folder: Path, name: str, splits: Sequence[str]) -> dict[str, list]:
    """The rows of a CSV file, or the lines of a TSV file with its header, by split."""
    if name in CSV:
        return {s: pd.read_csv(folder / name / f"{s}.csv", header=None).values.tolist() for s in splits}
    stored = {}
    for split in splits:
        with (folder / name / f"{split}.tsv").open(encoding="utf-8") as file:
            stored[split] = file.readlines()
    return stored


def group_of(name: str, row: Any) -> object:
    """The group of rows from which k are drawn: those of one label, or of one side of STS-B's scores."""
    if name in CSV:
        return row[0]
    cells = row.strip().split("\t")
    return float(cells[-1]) >= 2.5 if name == "STS-B" else cells[{"CoLA": 1, "MRPC": 0}.get(name, -1)]


def limited(name: str, rows: list, limit: int | None) -> list:
    """At most `limit` rows of test; lines are shuffled in place, as the script does."""
    if not limit or len(rows) <= limit:
        return rows
    np.random.seed(42)
    if name in CSV:
        return pd.DataFrame(rows).sample(n=limit, random_state=42).values.tolist()
    np.random.shuffle(rows)
    return rows[:limit]


def drawn_by_hand(
    folder: Path, name: str, k: int, seeds: Sequence[int], limit: int | None
) -> dict[str, bytes]:
    """Protocol 2.2 step by step on whole lists: every seed in turn, numpy's global legacy generator."""
    files: dict[str, bytes] = {}
    suffix, tests = ("csv", ["test"]) if name in CSV else ("tsv", ["dev"])
    if name == "MNLI":
        tests = ["dev_matched", "dev_mismatched"]
    stored = stored_lists(folder, name, ("train", *tests))

    def put(path: str, header: list, rows: list) -> None:
        if name in CSV:
            files[path] = pd.DataFrame(rows).to_csv(header=False, index=False).encode()
        else:
            files[path] = "".join(header + rows).encode()

    def parts_of(split: str) -> tuple[list, list]:
        """Header and rows. All lists but CoLA's, which has no header, are copies."""
        if name in CSV:
            return [], list(stored[split])
        return ([], stored[split]) if name == "CoLA" else (stored[split][:1], stored[split][1:])

    for seed in seeds:
        np.random.seed(seed)
        header, rows = parts_of("train")
        np.random.shuffle(rows)
        for test in tests:
            test_header, test_rows = parts_of(test)
            path = f"{name}/{k}-{seed}/{test.replace('dev', 'test')}.{suffix}"
            put(path, test_header, limited(name, test_rows, limit))
        groups: dict[object, list] = {}
        for row in rows:
            groups.setdefault(group_of(name, row), []).append(row)
        dev_name = "dev_matched" if name == "MNLI" else "dev"
        for part, (a, b) in {"train": (0, k), dev_name: (k, 2 * k)}.items():
            chosen = [row for rows in groups.values() for row in rows[a:b]]
            put(f"{name}/{k}-{seed}/{part}.{suffix}", header, chosen)
    return files


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("lmbff"))


@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("name", [name for name in KNOWN if name != "mnli_mismatched"])
def test_k_shot_files_are_those_of_the_script(made_up: Path, name: str, limit: int | None):
    expected = drawn_by_hand(made_up, LAYOUTS[name].folder, 4, SEEDS, limit)
    found = lmbff_texts(get_task(name), made_up, 4, SEEDS, limit)
    assert {path: text.encode() for path, text in found.items()} == expected
    assert len(found) == 5 * (4 if name == "mnli" else 3)


def test_cola_is_as_after_the_canonical_seeds_whatever_is_asked_for(made_up: Path):
    whole = lmbff_texts(get_task("cola"), made_up, 4, SEEDS, 20)
    alone = lmbff_texts(get_task("cola"), made_up, 4, (42,), 20)
    assert alone == {path: text for path, text in whole.items() if "/4-42/" in path}
    fresh = lmbff_texts(get_task("cola"), made_up, 4, (5,), 20)
    assert {p: t.encode() for p, t in fresh.items()} == drawn_by_hand(made_up, "CoLA", 4, (5,), 20)


def test_bytes_that_are_easily_lost(made_up: Path):
    qnli = lmbff_texts(get_task("qnli"), made_up, 4, (13,), None)["QNLI/4-13/train.tsv"]
    assert qnli.startswith("\ufeffcolumn0\t")
    assert '"quoted"' in qnli
    assert "crème brûlée" in qnli
    assert "\r" not in lmbff_texts(get_task("rte"), made_up, 4, (13,), None)["RTE/4-13/train.tsv"]
    # pandas reads `None` as missing and writes nothing for it
    mr = lmbff_texts(get_task("mr"), made_up, 16, (13,), None)["mr/16-13/train.csv"]
    assert "\n0,\n" in mr or "\n1,\n" in mr


@pytest.mark.parametrize("name", KNOWN)
def test_runs_see_the_rows_of_the_files(made_up: Path, name: str):
    """The split that a run draws from LM-BFF's files holds the texts of LM-BFF's k-shot files."""
    task = get_task(name)
    data = load_task_data(task, made_up)
    assert data.origin == "folder in LM-BFF's layout"
    folder = LAYOUTS[name].folder
    for seed in (13, 87):
        few = draw_split(data, 4, seed, "lm-bff")
        texts = lmbff_texts(task, made_up, 4, (seed,), None)
        dev_name = "dev_matched" if folder == "MNLI" else "dev"
        for part, rows in (("train", few.train), (dev_name, few.dev)):
            written = texts[f"{folder}/4-{seed}/{part}.{LAYOUTS[name].suffix}"]
            if folder in TSV:
                width, places, _, _ = TSV[folder]
                lines = written.split("\n")[folder != "CoLA" : -1]
                cells = [line.split("\t") for line in lines]
                assert all(len(row) == width for row in cells)
                assert [data.train[i].texts for i in rows] == [tuple(row[p] for p in places) for row in cells]
            else:
                labels = [
                    int(line.split(",")[0])
                    for line in written.split("\n")
                    if line[:2] in map("{},".format, range(6))
                ]
                assert [data.train[i].label for i in rows] == labels


def test_trec_ids_are_read_by_name(made_up: Path):
    rows, _ = stored_rows(get_task("trec"), made_up)
    # LM-BFF: Description, Entity, Expression (the hub's ABBR, 0), Human, Location, Number
    assert [row["coarse_label"] for row in rows[:6]] == [2, 1, 0, 3, 4, 5]
    assert rows[0]["text"] == "None", "a text that pandas would take for missing is a text here"


def test_broken_lines_of_qqp_are_left_out_and_leave_the_draw_as_it_is(tmp_path: Path):
    for split in ("train", "dev"):
        write_tsv(tmp_path / "QQP" / f"{split}.tsv", "QQP", 60)
    path = tmp_path / "QQP" / "train.tsv"
    lines = path.read_bytes().split(b"\n")
    lines[11] = b"7\t8\tcut off"
    path.write_bytes(b"\n".join(lines))
    data = load_task_data(get_task("qqp"), tmp_path)
    assert (len(data.train), data.left_out) == (59, (10,))
    assert data.origin == "folder in LM-BFF's layout, broken lines left out: 1"
    few = draw_split(data, 8, 13, "lm-bff")
    by_hand = drawn_by_hand(tmp_path, "QQP", 8, (13,), None)["QQP/8-13/train.tsv"].decode()
    good = [line.split("\t") for line in by_hand.split("\n")[1:-1] if line.count("\t") == 5]
    assert [data.train[i].texts for i in few.train] == [(row[3], row[4]) for row in good]
    assert {p: t.encode() for p, t in lmbff_texts(get_task("qqp"), tmp_path, 8, (13,), None).items()} == (
        drawn_by_hand(tmp_path, "QQP", 8, (13,), None)
    )


def test_a_csv_with_our_columns_is_ours_and_both_at_once_are_an_error(tmp_path: Path):
    folder = tmp_path / "mr"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text("\ufefftext,label\ngood,1\nbad,0\n", encoding="utf-8")
    assert load_task_data(get_task("mr"), tmp_path).origin == "folder"
    with pytest.raises(UserError, match=r"of LM-BFF's own files, DIR/mr/train\.csv.*--format jsonl"):
        lmbff_texts(get_task("mr"), tmp_path, 1, (13,), None)
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text("0,bad\n1,good\n")
        (folder / f"{split}.jsonl").write_text('{"text": "bad", "label": 0}\n')
    with pytest.raises(UserError, match="mr is there twice, in LM-BFF's layout"):
        load_task_data(get_task("mr"), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "mr",
            "txt,label\ngood,1\n",
            "train.csv, row 1: starts with 'txt'. Expected one of LM-BFF's label ids 0, 1",
        ),
        ("mr", "7,good\n", "row 1: starts with '7'"),
        ("mr", "1,good,more\n", "3 columns, but LM-BFF's layout has two"),
        ("mr", "", "EmptyDataError"),
        ("rte", "a\tb\nc\td\n", "train.tsv, line 2: 2 cells, expected at least 3, as LM-BFF's RTE has them"),
        ("rte", "index\ta\tb\tlabel\n1\tx\ty\tmaybe\n", "label 'maybe' is none of"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str):
    layout = LAYOUTS[name]
    for stem in ("train", *layout.tests):
        path = tmp_path / layout.folder / f"{stem}.{layout.suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_task_data(get_task(name), tmp_path)


def test_a_missing_folder_names_both_layouts(tmp_path: Path):
    assert "or SST-2/ with LM-BFF's train.tsv and dev.tsv" in str(missing_data(get_task("sst2"), tmp_path))


# -- against the published checksums -------------------------------------------------------------------

MD5 = {
    "SST-2/16-13/train.tsv": "fe166f3b9e9952cb729a8d2c3bd682ae",
    "SST-2/16-13/dev.tsv": "0eeeb2195d82899d15ab5eeaddcaa944",
    "SST-2/16-42/train.tsv": "edce4c52734c2084476ac03bfdfa5c77",
    "sst-5/16-13/train.csv": "c446d010f7ea4846be28d58d81169648",
    "trec/16-13/train.csv": "50cff1542195f5321cb951ca1d980ec0",
}


def rebuilt(data_dir: Path, folder: Path) -> Path:
    """LM-BFF's raw files of the three tasks whose rows are all in the data beside the checkout."""

    def rows(task: str, split: str) -> list[dict]:
        with gzip.open(data_dir / task / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    (folder / "SST-2").mkdir()
    for ours, theirs in (("train", "train"), ("validation", "dev")):
        lines = [f"{row['sentence']}\t{row['label']}\n" for row in rows("sst2", ours)]
        (folder / "SST-2" / f"{theirs}.tsv").write_text(
            "sentence\tlabel\n" + "".join(lines), encoding="utf-8"
        )
    for task, theirs, label, ids in (
        ("sst5", "sst-5", "label", range(5)),
        ("trec", "trec", "coarse_label", (2, 1, 0, 3, 4, 5)),
    ):
        (folder / theirs).mkdir()
        for split in ("train", "test"):
            table = pd.DataFrame([[ids[row[label]], row["text"]] for row in rows(task, split)])
            table.to_csv(folder / theirs / f"{split}.csv", header=False, index=False)
    return folder


def test_the_published_checksums(data_dir: Path, tmp_path: Path):
    folder = rebuilt(data_dir, tmp_path)
    found: dict[str, str] = {}
    for name in ("sst2", "sst5", "trec"):
        found |= lmbff_texts(get_task(name), folder, 16, (13, 42), None)
    sums = {path: hashlib.md5(text.encode()).hexdigest() for path, text in found.items()}
    assert {path: sums[path] for path in MD5} == MD5


def test_512_shots_of_trec_leave_one_class_without_dev_rows(data_dir: Path, tmp_path: Path):
    texts = lmbff_texts(get_task("trec"), rebuilt(data_dir, tmp_path), 512, (13,), 1000)
    counts = {path: pd.Series([int(line[0]) for line in text.splitlines()]) for path, text in texts.items()}
    assert len(counts["trec/512-13/train.csv"]) == 2646
    assert len(counts["trec/512-13/dev.csv"]) == 2243
    assert (counts["trec/512-13/train.csv"] == 2).sum() == 86
    assert not (counts["trec/512-13/dev.csv"] == 2).any()


# -- the command ---------------------------------------------------------------------------------------


def test_the_command_writes_them(made_up: Path, tmp_path: Path):
    words = ["tasks", "split", "mnli", "--k", 4, "--data-dir", made_up, "--out", tmp_path / "out"]
    done = run_command(*words)
    assert done.returncode == 0, done.stderr
    expected = drawn_by_hand(made_up, "MNLI", 4, SEEDS, None)
    written = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*.tsv")}
    assert {name: path.read_bytes() for name, path in written.items()} == expected
    path, digest = done.stdout.splitlines()[0].split("\t")
    assert hashlib.md5(Path(path).read_bytes()).hexdigest() == digest


def test_where_limited_test_files_are_not_the_rows_of_the_runs_that_is_said(made_up: Path, tmp_path: Path):
    words = ["tasks", "split", "cola", "--k", 4, "--data-dir", made_up, "--out", tmp_path / "out"]
    done = run_command(*words, "--test-limit", 20, "--seeds", "13,21")
    assert done.returncode == 0, done.stderr
    assert "cola: the test files differ between seeds" in done.stderr
    tests = [(tmp_path / "out" / "CoLA" / f"4-{seed}" / "test.tsv").read_bytes() for seed in (13, 21)]
    assert tests[0] != tests[1]


def test_files_of_other_content_are_not_written_over(made_up: Path, tmp_path: Path):
    out = tmp_path / "out"
    words = ["tasks", "split", "cola", "--k", 4, "--data-dir", made_up, "--out", out, "--seeds"]
    assert run_command(*words, "13").returncode == 0
    assert run_command(*words, "13").returncode == 0  # the same files
    mine = out / "CoLA" / "4-13" / "dev.tsv"
    mine.write_text("mine")
    done = run_command(*words, "21,13")
    assert done.returncode == 2
    assert (
        f"--out {out} already holds a CoLA/4-13/dev.tsv with other content, and nothing was written"
        in done.stderr
    )
    assert mine.read_text() == "mine"
    assert not (out / "CoLA" / "4-21").exists()


def test_json_lines_are_the_rows_of_the_runs(toy_data: Path, tmp_path: Path):
    task = get_task("sst2")
    texts = jsonl_texts(task, toy_data, 4, (13,), "mezo", 10)
    assert list(texts) == [f"sst2/4-13/{part}.jsonl" for part in ("train", "dev", "test")]
    data = load_task_data(task, toy_data)
    few = draw_split(data, 4, 13, "mezo")
    rows = [json.loads(line) for line in texts["sst2/4-13/train.jsonl"].splitlines()]
    assert rows == [{"sentence": data.train[i].texts[0], "label": data.train[i].label} for i in few.train]
    assert texts["sst2/4-13/test.jsonl"].count("\n") == 10
    done = run_command("tasks", "split", "sst2", "--data-dir", toy_data, "--out", tmp_path / "o", "--k", 4)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: --format lm-bff copies lines of LM-BFF's own files, DIR/SST-2/train.tsv"
    )
    assert not (tmp_path / "o").exists()
