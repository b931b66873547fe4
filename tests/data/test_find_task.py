"""Tasks from a user's file or an installed package, and how they enter a sweep and its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from momentum_bench.harness.data.find_task import ENTRY_POINTS, find_task, further_names, task_of
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.sweeps.grids import grid
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.user_code import offered
from momentum_bench.leaderboards.reproduce import sweep_text
from momentum_bench.leaderboards.rows import rows_of
from momentum_bench.tasks import ImageTask, UnknownTaskError, get_task
from tests.conftest import ROOT, write_rows
from tests.helpers.command_line import run_command
from tests.helpers.tickets import IMAGE_SOURCE, SOURCE, ticket_rows, write_shades


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    task_of.cache_clear()
    yield
    task_of.cache_clear()
    offered.cache_clear()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    write_rows(tmp_path / "data" / "tickets" / "train.jsonl", ticket_rows(24))
    write_rows(tmp_path / "data" / "tickets" / "test.jsonl", ticket_rows(30)[24:])
    return tmp_path / "data"


def test_a_file_is_found_by_its_tasks_name_and_read_once(mine: Path) -> None:
    task = find_task("tickets", mine)
    assert task.label_words == ("good", "bad")
    mine.write_text(SOURCE.replace('"good"', '"great"'))
    assert find_task("tickets", mine) is task
    task_of.cache_clear()
    assert find_task("tickets", mine).version != task.version
    assert find_task("sst2", mine) is get_task("sst2")
    assert not list(mine.parent.glob("__pycache__"))


def test_a_sweep_takes_it_and_needs_no_name(mine: Path, tmp_path: Path) -> None:
    sweep = make_sweep({"task_file": mine, "method": "head"}, None)
    assert sweep.task == ("tickets",)
    assert grid(sweep, "tickets", "sgd") == (0.1, 0.2)
    assert sweep.max_steps == 1000, "the quick start's defaults are of its task alone"
    file = tmp_path / "sweep.toml"
    file.write_text(f'task-file = "{mine}"\ntask = ["sst2", "tickets"]\n')
    assert make_sweep({}, file).task == ("sst2", "tickets")
    with pytest.raises(UserError, match="sst2 leaves out tickets, the task of --task-file"):
        make_sweep({"task_file": mine, "task": "sst2"}, None)
    with pytest.raises(UserError, match=r"--task: unknown task 'ticket'\. Did you mean tickets"):
        make_sweep({"task_file": mine, "task": "ticket"}, None)


EDITS = [
    ("template=", "templte=", "line 10: Task has no field 'templte'. Did you mean template.$"),
    ("reason=", "reson=", "line 6: LocalOnly has no field 'reson'. Did you mean reason.$"),
    ('    test="test",\n', "", "line 3: Task needs the field test, which is missing"),
    ("{text}", "{txt}", r"template names \['txt'\], but the text columns are \('text',\)"),
    ('"bad"', '"good"', "line 3: two labels share a label word"),
    ('"bad"', "3", r"line 11: label_words: .*valid string \(found 3\)"),
    ('"tickets"', '"My Tickets"', "line 4: name: String should match"),
    ('"tickets"', '"sst2"', "sst2 is taken more than once, by momentum-bench itself and by"),
    ('"tickets"', '"glue"', "glue is taken more than once, by .*for a suite"),
    ("TASK", "task", "expected TASK = Task.*found no TASK"),
]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *((SOURCE.replace(old, new), message) for old, new, message in EDITS),
        ("import torch\n" + SOURCE, r"line 1: imports torch\. A task is data"),
        (SOURCE + "\ndef f():\n    from torch import nn\n", r"line 18: imports torch\. A task is data"),
        ("from . import x\n" + SOURCE, r"line 1: imports \.\. A task is data"),
        ("TASK = 3", "found a TASK of the type int"),
        ("\n\n1 / 0", "line 3: ZeroDivisionError"),
        ("x = 1\nTASK = Task(", "line 2: SyntaxError"),
    ],
)
def test_mistakes_in_a_file_are_named_with_their_line(mine: Path, source: str, message: str) -> None:
    mine.write_text(source)
    with pytest.raises(UserError, match=message):
        make_sweep({"task_file": mine}, None)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        task_of(tmp_path / "nowhere.py")
    with pytest.raises(UserError, match=r"ends in \.py"):
        task_of(tmp_path / "task.toml")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a package with entry points, `name="module:attribute"`, on the path; returns its folder."""

    def put(package: str, source: str = SOURCE, **points: str) -> Path:
        folder = tmp_path / package
        info = folder / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{lines}")
        (folder / f"{package}_tasks.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        offered.cache_clear()
        return folder

    return put


def test_a_package_offers_tasks(install: Callable[..., Path], mine: Path) -> None:
    install("helpdesk", tickets="helpdesk_tasks:TASK")
    assert find_task("tickets").title == "Support tickets"
    assert further_names() == ["tickets"]
    assert make_sweep({"task": "sst2,tickets"}, None).task == ("sst2", "tickets")
    with pytest.raises(UnknownTaskError, match="Did you mean tickets"):
        find_task("tikets")
    with pytest.raises(
        UserError, match=r"tickets is taken more than once, by --task-file .* the package helpdesk"
    ):
        find_task("tickets", mine)


def test_broken_entry_points(install: Callable[..., Path]) -> None:
    install(
        "broken", other="broken_tasks:TASK", gone="broken_tasks:GONE", number="broken_tasks:Task", away="no:T"
    )
    for name, message in {
        "other": "under the name other a task whose name is tickets",
        "gone": "the package broken: its task gone cannot be loaded: AttributeError",
        "number": "leads to a ModelMetaclass, expected",
        "away": "cannot be loaded: ModuleNotFoundError",
    }.items():
        with pytest.raises(UserError, match=message):
            find_task(name)


def test_a_package_may_not_bring_torch_along(install: Callable[..., Path]) -> None:
    folder = install("heavy", "import torch\n" + SOURCE, tickets="heavy_tasks:TASK")
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    code += "from momentum_bench.harness.data.find_task import find_task; find_task('tickets')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "the package heavy: heavy_tasks:TASK imports torch. A task is data" in done.stderr


@pytest.mark.slow
def test_workers_find_the_file_and_the_leaderboard_needs_it_not(
    command, mine: Path, tickets: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["--task-file", mine, "--data-dir", tickets, "--model", tiny_model, "--k", 4, "--seeds", 13]
    words += ["--learning-rates", 0.1, "--max-steps", 2, "--eval-every", 1, "--runs-at-a-time", 2]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    records = [
        RunRecord.model_validate({k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"})
        for path in sorted((tmp_path / "results" / "runs").glob("*/record.json"))
    ]
    assert [record.status for record in records] == ["done", "done"]
    assert {(r.spec.task, r.spec.task_version) for r in records} == {
        ("tickets", find_task("tickets", mine).version)
    }

    mine.write_text(SOURCE.replace('"good"', '"great"'))
    # in a process of its own, because this one has read the file already
    assert "0 of them already there" in command(*words, "--dry-run").stderr
    mine.unlink()
    checked = run_command("leaderboard", "check", tmp_path / "results")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    text = sweep_text(rows_of(records)[0])
    assert 'task = "tickets"' in text
    assert "--task-file FILE" in text


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A file with an image task; its images are in the folder `data` next to it."""
    write_shades(tmp_path / "data")
    path = tmp_path / "my_images.py"
    path.write_text(IMAGE_SOURCE)
    return path


def test_a_file_may_hold_an_image_task(shades: Path) -> None:
    task = find_task("shades", shades)
    assert isinstance(task, ImageTask)
    sweep = make_sweep({"task_file": shades}, None)
    assert (sweep.task, sweep.method, sweep.model) == (("shades",), "scratch", "task:shades")
    assert sweep.max_steps == round(11 / 4)
    assert grid(sweep, "shades", "sgd") == (0.1, 0.2)
    source = resolve_model(sweep.model, shades)
    assert source.name == "task:shades"
    shades.write_text(IMAGE_SOURCE.replace('"depths": [1]', '"depths": [2]'))
    task_of.cache_clear()
    assert resolve_model(sweep.model, shades).revision != source.revision


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "n_train=",
            "n_trane=",
            r"my_images.py:\nline 8: ImageTask has no field 'n_trane'. Did you mean n_train",
        ),
        ("    size=", "    sise=", "line 9: ImageTask has no field 'sise'. Did you mean size.$"),
        ("    n_classes=2,\n", "", "ImageTask needs the field n_classes, which is missing"),
        ("mean=(0.5,)", "mean=(0.5, 0.5)", "1 channels need as many means"),
        ('"shades"', '"digits"', "digits is taken more than once, by momentum-bench itself and by"),
        ("epochs=1,", 'epochs=1,\n    metric="pearsonr",', "'pearsonr' scores numbers, and .* classes"),
    ],
)
def test_mistakes_in_an_image_task_are_named(shades: Path, old: str, new: str, message: str) -> None:
    shades.write_text(IMAGE_SOURCE.replace(old, new))
    with pytest.raises(UserError, match=message):
        make_sweep({"task_file": shades}, None)


def test_an_image_task_without_its_images_says_where_they_go(shades: Path) -> None:
    with pytest.raises(UserError, match=r"shades cannot be downloaded: they are ours.*DIR/shades/train/ and"):
        load_task_data(find_task("shades", shades), None)


def test_a_package_offers_image_tasks(install: Callable[..., Path], shades: Path) -> None:
    install("pictures", IMAGE_SOURCE, shades="pictures_tasks:TASK")
    assert isinstance(find_task("shades"), ImageTask)
    assert make_sweep({"task": "shades"}, None).model == "task:shades"


def test_the_command_line_takes_an_image_task_from_a_file(shades: Path, tmp_path: Path) -> None:
    words = ["--task-file", shades, "--data-dir", tmp_path / "data", "--seeds", "13", "--runs-at-a-time", "1"]
    words += ["--learning-rates", "0.1", "--max-steps", "2", "--batch-size", "2"]
    done = run_command("run", *words, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*/record.json")]
    assert [record["status"] for record in records] == ["done", "done"]
    assert {(r["spec"]["task"], r["spec"]["task_version"]) for r in records} == {
        ("shades", find_task("shades", shades).version)
    }
    assert {record["read_back"]["layout"]["inputs"] for record in records} == {"images"}
    checked = run_command("leaderboard", "check", tmp_path / "out")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = run_command("tasks", "show", shades)
    assert f"version          {find_task('shades', shades).version}" in shown.stdout, shown.stderr
    refused = run_command("tasks", "check", shades)
    assert refused.returncode == 2
    assert f"try it with `momentum-bench run --task-file {shades}" in refused.stderr


def test_a_broken_file_ends_the_command_line_with_one_message(command, mine: Path) -> None:
    mine.write_text("import torch\n" + SOURCE)
    done = command("--task-file", mine)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --task-file {mine}, line 1: imports torch")
    assert "Traceback" not in done.stderr
