"""Whatever happens to the files of records, there is no wrong leaderboard and no traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.records.files import LARGEST_BYTES, checksum, write_record
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.tables import csv_tables
from tests.helpers.specs import make_record

RECORDS = [
    make_record(dev, test, seed=seed, optimizer=optimizer, learning_rate=rate)
    for seed in (13, 21)
    for optimizer, dev, test in (("sgd", 0.5, 0.6), ("sgdm", 0.75, 0.7))
    for rate in (0.1, 0.2)
]
IDS = sorted(record.spec.run_id for record in RECORDS)


def whole(folder: Path, records: list[RunRecord]) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    store.open()
    for record in records:
        store.write(record)
    return store


def rewritten(change: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    """A change of a record, with a fitting checksum, as a newer version or a cheat would write it."""

    def rewrite(content: bytes) -> bytes:
        fields = json.loads(content)
        del fields["checksum"]
        change(fields)
        return json.dumps(fields | {"checksum": checksum(fields)}).encode()

    return rewrite


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[place % len(changed)] ^= 1 << bit
    return bytes(changed)


def from_newer_version(fields: dict) -> None:
    fields["spec"]["protocol_version"] += 1


def with_a_field_of_the_future(fields: dict) -> None:
    fields["spec"]["rank_of_adapters"] = 8


def with_an_endless_list(fields: dict) -> None:
    fields["environment"] = [0] * 10**6


FLIP = st.tuples(st.integers(0, 2000), st.integers(0, 7)).map(lambda at: lambda b: flipped(b, *at))
CUT = st.integers(0, 2000).map(lambda n: lambda content: content[:n])
DEEP = st.sampled_from([b"[", b'{"a":', b'{"spec":[']).map(lambda b: lambda content: b * 100_000)
JUNK = st.binary(max_size=200).map(lambda junk: lambda content: junk)
OTHER_JSON = st.sampled_from(
    [b"null", b"[]", b"{}", b'{"checksum": {}}', b'{"checksum": 1e999}', b"9" * 10**5]
).map(lambda text: lambda content: text)
NEWER = st.sampled_from([from_newer_version, with_a_field_of_the_future, with_an_endless_list]).map(rewritten)
CHANGES = st.one_of(FLIP, CUT, DEEP, JUNK, OTHER_JSON, NEWER)


def path_of(store: Store, run_id: str) -> Path:
    return store.output_dir / "runs" / run_id / "record.json"


@given(
    changes=st.dictionaries(st.sampled_from(IDS), CHANGES, max_size=4),
    order=st.permutations(IDS) | st.just(IDS),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_no_damage_makes_a_wrong_leaderboard(
    tmp_path: Path, changes: dict[str, Callable[[bytes], bytes]], order: list[str]
):
    store = whole(tmp_path / "mine", RECORDS)
    contents = {run_id: path_of(store, run_id).read_bytes() for run_id in IDS}
    for run_id, there in zip(IDS, order, strict=True):  # records swap their folders
        path_of(store, run_id).write_bytes(contents[there])
    for run_id, change in changes.items():
        path_of(store, run_id).write_bytes(change(path_of(store, run_id).read_bytes()))

    kept = store.records()
    known = {record.spec.run_id: record for record in RECORDS}
    assert all(record == known[record.spec.run_id] for record in kept)
    for record in kept:  # those that are whole and in their own folders
        assert order[IDS.index(record.spec.run_id)] == record.spec.run_id
    untouched = {a for a, b in zip(IDS, order, strict=True) if a == b} - set(changes)
    assert untouched <= {record.spec.run_id for record in kept}

    board = build(store)
    assert csv_tables(board) == csv_tables(build(whole(tmp_path / "rest", kept)))
    lost = [run_id for run_id in IDS if run_id not in {record.spec.run_id for record in kept}]
    notes = [note for note in board.notes if "cannot be read and do not count" in note]
    assert len(notes) == bool(lost)
    if lost:
        assert f"{len(lost)} record(s)" in notes[0]
        assert departures(store.output_dir)  # it does not pass as a submission


@pytest.mark.parametrize("place", ["huge", "folder", "link to itself"])
def test_no_file_in_a_records_place_ends_in_a_traceback(tmp_path: Path, place: str):
    store = whole(tmp_path, RECORDS)
    path = path_of(store, IDS[0])
    path.unlink()
    if place == "huge":
        path.touch()
        os.truncate(path, LARGEST_BYTES + 1)
    elif place == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    assert len(store.records()) == len(RECORDS) - 1
    for words in (["leaderboard", "build"], ["leaderboard", "check"], ["status"]):
        done = CliRunner().invoke(app, [*words, str(tmp_path)])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert done.exit_code == (words != ["status"])


def test_a_plan_may_be_damaged_too(tmp_path: Path):
    store = whole(tmp_path, RECORDS)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.json").write_bytes(b"[" * 100_000)
    write_record(tmp_path / "plans" / "b.json", RECORDS[0])
    assert store.plans() == []
    assert CliRunner().invoke(app, ["status", str(tmp_path)]).exit_code == 0
