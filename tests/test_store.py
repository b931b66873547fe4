from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.records import PROTOCOL_VERSION, RunSpec
from harness.store import MARKER, Store
from tests.specs import make_record, make_spec

FRACTION = st.floats(0, 1)


def fresh_store(folder: Path) -> Store:
    store = Store(folder)
    store.open()
    return store


@given(dev=FRACTION, test=FRACTION, rate=st.floats(1e-12, 1e12), seed=st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_what_is_written_is_read(tmp_path: Path, dev: float, test: float, rate: float, seed: int):
    store = fresh_store(tmp_path)
    record = make_record(dev, test, learning_rate=rate, seed=seed)
    store.write(record)
    assert store.read(record.spec.run_id) == record


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_damaged_record_counts_as_not_there(tmp_path: Path, data: st.DataObject):
    store = fresh_store(tmp_path)
    record = make_record(0.5, 0.5)
    store.write(record)
    path = tmp_path / "runs" / record.spec.run_id / "record.json"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 2))]
    else:
        place = data.draw(st.integers(0, len(content) - 2))
        content[place] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(content)
    # a flip may leave the same content (the case of an exponent); never another one
    assert store.read(record.spec.run_id) in (None, record)


def test_a_damaged_record_is_set_aside_and_not_lost(tmp_path: Path):
    store = fresh_store(tmp_path)
    record = make_record()
    store.write(record)
    assert store.set_aside_damaged(record.spec.run_id) is None
    path = tmp_path / "runs" / record.spec.run_id / "record.json"
    torn = path.read_text()[:100]
    path.write_text(torn)
    aside = store.set_aside_damaged(record.spec.run_id)
    assert aside is not None
    assert aside.read_text() == torn
    assert not path.exists()
    assert store.records() == []


def test_a_record_in_another_runs_folder_counts_as_not_there(tmp_path: Path):
    store = fresh_store(tmp_path)
    a, b = make_record(seed=1), make_record(seed=2)
    store.write(a)
    folder = tmp_path / "runs" / b.spec.run_id
    (tmp_path / "runs" / a.spec.run_id).rename(folder)
    assert store.read(b.spec.run_id) is None
    assert store.finished([a.spec, b.spec]) == {}


def test_a_claimed_run_is_not_claimed_again_until_it_is_free(tmp_path: Path):
    a, b = fresh_store(tmp_path), fresh_store(tmp_path)
    with a.claim(make_spec(seed=1)) as first, b.claim(make_spec(seed=1)) as second:
        assert (first, second) == (True, False)
        with b.claim(make_spec(seed=2)) as other:
            assert other
    with b.claim(make_spec(seed=1)) as later:
        assert later


def test_records_are_listed_and_leave_no_other_files(tmp_path: Path):
    store = fresh_store(tmp_path)
    for seed in (3, 1, 2):
        store.write(make_record(seed=seed))
    assert sorted(record.spec.seed for record in store.records()) == [1, 2, 3]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"record.json", MARKER, "lock"}


def test_another_protocol_version_is_refused(tmp_path: Path):
    fresh_store(tmp_path)
    fresh_store(tmp_path)  # one's own is fine
    (tmp_path / MARKER).write_text(json.dumps({"protocol_version": PROTOCOL_VERSION + 1}))
    with pytest.raises(UserError, match=f"protocol version {PROTOCOL_VERSION + 1}"):
        fresh_store(tmp_path)
    (tmp_path / MARKER).write_text("torn")
    with pytest.raises(UserError, match="unreadable"):
        fresh_store(tmp_path)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        fresh_store(tmp_path / "file" / "results")


def test_the_id_follows_every_field_of_the_spec():
    spec = make_spec()
    other = {
        "dropout": 0.0,
        "max_grad_norm": None,
        "test_limit": 5,
        "method": "prompt",
        "lr_schedule": "cosine",
        "precision": "bf16",
        "hyperparameters": {"momentum": 0.5},
    }
    ids = {spec.run_id}
    for name in RunSpec.model_fields:
        value = other.get(name)
        if name not in other:
            value = "x" if getattr(spec, name) is None else getattr(spec, name) + type(getattr(spec, name))(1)
        ids.add(spec.model_copy(update={name: value}).run_id)
    assert len(ids) == len(RunSpec.model_fields) + 1


def test_the_id_of_a_spec_is_frozen():
    """Another id here would orphan every published record: raise the protocol version instead."""
    assert make_spec().run_id == make_spec().model_copy().run_id == "f7c3b7e637a45d47"
