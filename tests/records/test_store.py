from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.files import LEFT_BY_SAFETENSORS, LEFT_BY_US, WRITING
from momentum_bench.harness.records.schema import PROTOCOL_VERSION, RunSpec
from momentum_bench.harness.records.store import ATTEMPT, CHECKPOINT, JOURNAL, LOCK, MARKER, WRITTEN_TO, Store
from tests.helpers.specs import make_record, make_spec

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
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"record.json", MARKER, LOCK}


def tidied_up(store: Store) -> None:
    """All that removes files: opening, waiting for the directory, claiming a run, storing it, clearing up."""
    store.open()
    record = make_record()
    with store.claim(record.spec) as claimed:
        assert claimed
        store.journal(record.spec)
        store.write(record)
    store.clear_finished()
    with store.alone():
        pass


LOOKS_TEMPORARY = ".env.tmpl", ".tmpnotes", ".tmp7rtVdR", ".record.json.x1y2abcd.tmp", ".momentum-bench.tmp"
"""Names of users' files; the third is as safetensors draws them, the fourth as earlier versions did."""

OURS = "record.json", ATTEMPT, JOURNAL, CHECKPOINT, WRITING
"""The files in the folder of a run."""

USERS_NAME = st.one_of(
    st.sampled_from(LOOKS_TEMPORARY),
    st.from_regex(r"\.?[a-z.]{0,8}tmp[A-Za-z0-9.~]{0,8}", fullmatch=True),
    st.from_regex(r"\.momentum-bench\.[a-z0-9_]{0,9}\.tmp[a-z~]?", fullmatch=True),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
).filter(lambda name: name not in (".", "..") and not LEFT_BY_US.fullmatch(name))


@given(names=st.lists(USERS_NAME, min_size=1, max_size=8), folders=st.lists(USERS_NAME, max_size=2))
@example(names=["evaluations.jsonl"], folders=[])
@settings(deadline=None, max_examples=60)
def test_a_users_file_is_never_removed_or_changed(names: list[str], folders: list[str]):
    run_folder = f"runs/{make_spec().run_id}"
    with tempfile.TemporaryDirectory() as scratch:
        mine = {}
        for place in ("", "config", "runs", run_folder, f"{run_folder}/{WRITING}", *WRITTEN_TO, *folders):
            for number, name in enumerate(names):
                path = Path(scratch, place, name)
                reserved = place.endswith(WRITING) and LEFT_BY_SAFETENSORS.fullmatch(name)
                reserved = reserved or (place == run_folder and name in OURS)
                if reserved or path.exists() or place == name:
                    continue
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError:  # a name drawn for a folder is already a file
                    continue
                mine[path] = f"{place} {number}".encode()  # as bytes, because a place may be named "\r"
                path.write_bytes(mine[path])
        tidied_up(Store(Path(scratch)))
        assert {path: path.read_bytes() for path in mine if path.is_file()} == mine


def test_a_folder_or_link_with_the_name_of_a_left_file_stays_and_harms_nothing(tmp_path: Path):
    folder = tmp_path / "results"
    for name in (".tmp.driveupload", ".momentum-bench.abcdefgh.tmp"):
        (folder / name).mkdir(parents=True)
        (folder / name / "mine").write_text("mine")
    (tmp_path / "target").write_text("mine")
    (folder / ".momentum-bench.ijklmnop.tmp").symlink_to(tmp_path / "target")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".momentum-bench.abcdefgh.tmp").write_text("mine")
    for name in ("plots", f"runs/{make_spec().run_id}"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    tidied_up(Store(folder))
    assert set(before) <= set(tmp_path.rglob("*"))
    assert (tmp_path / "elsewhere" / ".momentum-bench.abcdefgh.tmp").read_text() == "mine"


def test_what_a_killed_process_left_is_removed_where_the_results_are_a_link(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    store = fresh_store(tmp_path / "results")
    left = [tmp_path / "disk" / place / ".momentum-bench.abcdefgh.tmp" for place in ("", *WRITTEN_TO)]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    with store.alone():
        assert not [path for path in left if path.exists()]


def test_a_users_file_named_lock_is_left_alone(tmp_path: Path):
    (tmp_path / "lock").write_text("mine")
    (tmp_path / "lock").chmod(0o400)
    before = (tmp_path / "lock").stat()
    tidied_up(Store(tmp_path))
    assert (tmp_path / "lock").read_text() == "mine"
    assert (tmp_path / "lock").stat().st_mtime_ns == before.st_mtime_ns
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "runs", MARKER, LOCK}


@pytest.mark.parametrize("name", ["index.html", "leaderboard.csv", "plots/loss.svg", "tasks/sst2.csv"])
def test_a_directory_whose_files_would_be_written_over_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"its {name} would be overwritten: choose another --output-dir"):
        fresh_store(tmp_path)
    assert set(tmp_path.rglob("*")) == before
    (tmp_path / name).unlink()
    fresh_store(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("ours")  # by a sweep that has begun here
    fresh_store(tmp_path)


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


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # a value of another type will do
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
