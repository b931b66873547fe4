"""Suites of tasks, and the command line's `tasks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from momentum_bench import tasks
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.harness.sweeps.suites import expand_suites, without_short_tasks
from tests.conftest import ROOT, write_rows
from tests.helpers.command_line import run_command

LM_BFF = {
    "sst2",
    "sst5",
    "mr",
    "cr",
    "mpqa",
    "subj",
    "trec",
    "cola",
    "mrpc",
    "qqp",
    "stsb",
    "mnli",
    "snli",
    "qnli",
    "rte",
}


def asked(words: str, data_dir: Path | None = None) -> Sweep:
    return make_sweep({"task": words, "data_dir": data_dir}, None)


def test_suites_name_tasks_that_exist_and_no_suite_is_called_like_a_task():
    names = tasks.task_names()
    for members in tasks.SUITES.values():
        assert set(members) <= set(names)
        assert len(set(members)) == len(members)
    assert not set(tasks.SUITES) & set(names)
    assert set(tasks.SUITES["lmbff"]) == LM_BFF
    assert tasks.suites_of("rte") == ["glue", "superglue", "lmbff"]


def test_a_suite_stands_for_its_tasks_each_once():
    sweep, left_out = expand_suites(asked("sst2,superglue,glue"))
    assert sweep.task[:7] == ("sst2", "boolq", "cb", "multirc", "rte", "wic", "wsc")
    unpromptable = {"copa", "record"}
    assert set(sweep.task) == {*tasks.SUITES["glue"], *tasks.SUITES["superglue"]} - unpromptable
    assert len(set(sweep.task)) == len(sweep.task)
    assert left_out == [
        f"superglue: {name} is left out: --method prompt does not fit {name}, which has head and causal"
        for name in ("copa", "record")
    ]


def test_a_named_task_that_the_method_does_not_fit_is_an_error():
    with pytest.raises(UserError, match="--method prompt does not fit copa, which has head and causal"):
        expand_suites(asked("copa"))


def test_a_suite_leaves_out_what_cannot_be_downloaded():
    sweep, (message,) = expand_suites(asked("lmbff"))
    assert set(sweep.task) == LM_BFF - {"mpqa"}
    assert message.startswith("lmbff: mpqa is left out: mpqa cannot be downloaded")


def test_a_suite_leaves_out_tasks_without_data_and_a_named_task_stays(toy_data: Path):
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    for split in ("train", "validation"):
        write_rows(toy_data / "mnli" / f"{split}.jsonl", [row])
    sweep, left_out = expand_suites(asked("glue,wnli", toy_data))
    assert sweep.task == ("sst2", "mnli", "wnli")
    assert len(left_out) == 7
    assert any("mnli_mismatched is left out" in m and "no validation_mismatched file" in m for m in left_out)
    with pytest.raises(
        UserError, match=r"no task of superglue has data\. superglue: boolq is left out: no folder"
    ):
        expand_suites(asked("superglue", toy_data))


def test_a_suite_leaves_out_tasks_with_too_few_rows_and_a_named_task_does_not(toy_data: Path):
    pair = [{"premise": "a", "hypothesis": "b", "label": i % 3} for i in range(9)]
    for split in ("train", "validation"):
        write_rows(toy_data / "mnli" / f"{split}.jsonl", pair)

    def drawable(words: str, k: int) -> tuple[tuple[str, ...], list[str]]:
        request = make_sweep({"task": words, "data_dir": toy_data, "k": k}, None)
        sweep, _ = expand_suites(request)
        data = [load_task_data(tasks.get_task(name), toy_data) for name in sweep.task]
        sweep, kept, left_out = without_short_tasks(sweep, data, request.task)
        assert tuple(rows.task.name for rows in kept) == sweep.task
        return sweep.task, left_out

    assert drawable("paper", 2) == (("sst2", "mnli"), [])
    kept, (message,) = drawable("paper", 5)
    assert kept == ("sst2",)
    assert message.startswith("mnli is left out: k = 5 leaves fewer than two classes with dev rows")
    with pytest.raises(UserError, match="k = 5 leaves fewer than two classes"):
        drawable("paper,mnli", 5)
    with pytest.raises(UserError, match=r"no task of paper has enough rows\. sst2 is left out"):
        drawable("paper", 512)


def test_unknown_words_and_repeats_are_errors():
    with pytest.raises(UserError, match=r"Did you mean .*superglue"):
        asked("superglu")
    with pytest.raises(UserError, match="glue is given more than once"):
        asked("glue,sst2,glue")


def test_a_suite_runs_from_the_command_line(command_here, tiny_model: Path, toy_data: Path):
    words = ["--task", "paper", "--data-dir", toy_data, "--model", tiny_model, "--seeds", 13, "--k", 4]
    done = command_here("run", *words, "--method", "head", "--learning-rates", 0.1, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is left out: no folder") == 4
    assert "1 task(s) x 2 optimizers x 1 rates x 1 seeds = 2 runs" in done.stderr
    named = command_here("run", *words, "--task", "trec", "--dry-run")
    assert named.returncode == 2
    assert "error: no folder" in named.stderr


def test_the_list_is_whole_and_tab_separated_when_piped():
    done = run_command("tasks", "list")
    assert done.returncode == 0, done.stderr
    header, *lines = (line.split("\t") for line in done.stdout.splitlines())
    assert header == ["name", "kind", "classes", "metric", "source", "methods", "suites", "title"]
    found = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert list(found) == tasks.task_names()
    mrpc = tasks.get_task("mrpc")
    assert found["mrpc"] == {
        "name": "mrpc",
        "kind": "classification",
        "classes": "2",
        "methods": "prompt;head;causal",
        "metric": "f1;accuracy",
        "source": "nyu-mll/glue (mrpc)",
        "suites": "glue;lmbff",
        "title": mrpc.title,
    }


def test_show_tells_the_facts_and_fills_the_template(toy_data: Path):
    done = run_command("tasks", "show", "sst2", "--data-dir", toy_data)
    assert done.returncode == 0, done.stderr
    assert "0 negative -> terrible, 1 positive -> great" in done.stdout
    assert "the film 0 was terrible It was [mask]." in done.stdout
    assert "40 train, 24 test" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sst",), "error: unknown task 'sst'. Did you mean sst"),
        (("wic", "--data-dir", "."), "error: no folder wic"),
    ],
)
def test_what_cannot_be_shown_is_one_plain_message(words: tuple[str, ...], message: str):
    done = run_command("tasks", "show", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_tasks_start_without_torch():
    code = (
        "import sys; from momentum_bench.harness.cli.main import app;"
        "app(['tasks', 'list'], standalone_mode=False);"
        "print([name for name in ('torch', 'transformers', 'datasets', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("sst2,trec", r"sst2 from nyu-mll/glue, trec from CogComp/trec.*a sweep of its own"),
        ("bbc_news", r"--data-revision v2: the rows of bbc_news do not come from the hub"),
    ],
)
def test_one_revision_is_of_one_data_set(tasks: str, message: str):
    with pytest.raises(UserError, match=message):
        expand_suites(make_sweep({"task": tasks, "data_revision": "v2"}, None))
    expand_suites(make_sweep({"task": "sst2,rte", "data_revision": None}, None))
    expand_suites(make_sweep({"task": "sst2,mrpc", "data_revision": "v2"}, None))
