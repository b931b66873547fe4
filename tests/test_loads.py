"""What is loaded by a library: from one place, and without running code that comes with it."""

from __future__ import annotations

import ast
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import modeling_gguf_pytorch_utils as of_transformers

from momentum_bench.harness import loads
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.pretrained import load_model, load_tokenizer
from tests.conftest import ROOT, cli_environment

LOADERS = {
    "from_pretrained",
    "from_config",
    "for_model",
    "load_dataset",
    "load_dataset_builder",
    "get_class_from_dynamic_module",
    "pipeline",
}
PLACE = ROOT / "harness" / "loads.py"


def calls_of_loaders(source: str) -> list[int]:
    """Lines in which a library is asked to load something, or from which such a function is imported."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of_evaluate = isinstance(node.value, ast.Name) and node.value.id == "evaluate"
            loader = node.attr in LOADERS or (of_evaluate and node.attr == "load")
            if loader or node.attr.startswith("AutoModel"):
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            autos = any(name.startswith("Auto") for name in names) and node.module == "transformers"
            if names & LOADERS or autos or (node.module == "evaluate" and "load" in names):
                lines.append(node.lineno)
        elif isinstance(node, ast.Name) and node.id in LOADERS:
            lines.append(node.lineno)
    return lines


def test_libraries_load_in_one_place_only():
    found = {}
    for room in ("harness", "tasks", "leaderboards", "benchmarks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path != PLACE and (lines := calls_of_loaders(path.read_text())):
                found[str(path.relative_to(ROOT))] = lines
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import AutoTokenizer",
        "import transformers\ntransformers.AutoModelForCausalLM",
        "BertModel.from_pretrained('x')",
        "import datasets\ndatasets.load_dataset('x')",
        "from datasets import load_dataset_builder",
        "import evaluate\nevaluate.load('x')",
        "from evaluate import load",
    ],
)
def test_the_search_for_such_calls_finds_them(source: str):
    assert calls_of_loaders(source)


def test_each_call_of_transformers_says_that_no_code_is_run():
    tree = ast.parse(PLACE.read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config", "load_dataset")
    ]
    assert len(calls) >= 5
    for call in calls:
        [said] = [word.value for word in call.keywords if word.arg == "trust_remote_code"]
        assert isinstance(said, ast.Constant)
        assert said.value is False


def with_code(folder: Path, what: str, canary: Path) -> None:
    """Let a model's folder name Python code of its own, which leaves a file where it was run."""
    leaves_a_file = f"import pathlib\npathlib.Path({str(canary)!r}).write_text('run')\n"
    classes = {
        "config": "from transformers import BertConfig\nclass Own(BertConfig):\n    model_type = 'own'\n",
        "model": "from transformers import BertForMaskedLM\nclass Own(BertForMaskedLM):\n    pass\n",
        "tokenizer": "from transformers import PreTrainedTokenizerFast as P\nclass Own(P):\n    pass\n",
    }
    (folder / "own.py").write_text(leaves_a_file + classes[what])
    file = folder / ("tokenizer_config.json" if what == "tokenizer" else "config.json")
    facts = json.loads(file.read_text())
    if what == "config":
        facts |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    elif what == "model":  # a type that transformers knows, with no masked language model of its own
        facts |= {"model_type": "vit", "auto_map": {"AutoModelForMaskedLM": "own.Own"}}
    else:
        facts |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
        of_model = json.loads((folder / "config.json").read_text())  # a type without a tokenizer of its own
        (folder / "config.json").write_text(json.dumps(of_model | {"model_type": "vit"}))
    file.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("what", "terminal"),
    [
        ("config", True),
        pytest.param("model", False, marks=pytest.mark.slow),
        pytest.param("tokenizer", False, marks=pytest.mark.slow),
    ],
)  # transformers asks in one function, whatever has the code
def test_code_of_a_model_is_not_run_whoever_says_yes(
    what: str, terminal: bool, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    folder, canary = tmp_path / "theirs", tmp_path / "canary"
    shutil.copytree(tiny_model, folder)
    with_code(folder, what, canary)
    flags = ["--task", "sst2", "--model", folder, "--data-dir", toy_data, "--method", "prompt", "--k", 4]
    flags += ["--seeds", 13, "--max-steps", 1, "--runs-at-a-time", 1, "--output-dir", tmp_path / "out"]
    command = [sys.executable, str(ROOT / "harness" / "run.py"), *map(str, flags)]
    environment = cli_environment(HF_MODULES_CACHE=str(tmp_path / "modules"))
    above, below = pty.openpty() if terminal else os.pipe()[::-1]
    os.write(above, b"y\ny\ny\n")
    if not terminal:
        os.close(above)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=below, capture_output=True, text=True, check=False
    )
    assert not canary.exists()
    assert done.returncode == 2
    assert "names Python code that comes with it (auto_map)" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "y/N" not in done.stdout + done.stderr


def test_code_of_a_model_that_transformers_has_itself_is_left_alone(tiny_model: Path, tmp_path: Path):
    folder, canary = tmp_path / "theirs", tmp_path / "canary"
    shutil.copytree(tiny_model, folder)
    with_code(folder, "model", canary)
    facts = json.loads((folder / "config.json").read_text()) | {"model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(facts))
    loaded = load_model(resolve_model(str(folder)), "prompt", 0, None)
    assert type(loaded.model).__module__.startswith("transformers.")
    assert not canary.exists()


def test_a_tokenizer_of_its_own_is_not_replaced_by_another(tiny_model: Path, tmp_path: Path):
    """For a type of model that has a tokenizer, transformers takes that one without a word."""
    folder = tmp_path / "theirs"
    shutil.copytree(tiny_model, folder)
    of_model = (folder / "config.json").read_text()
    with_code(folder, "tokenizer", tmp_path / "canary")
    (folder / "config.json").write_text(of_model)
    with pytest.raises(UserError, match=r"tokenizer_config\.json names Python code"):
        load_tokenizer(resolve_model(str(folder)))


def test_attention_from_the_hub_is_refused(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "someone/kernel"}))
    with pytest.raises(UserError, match="attn_implementation is 'someone/kernel', which is code on the hub"):
        loads.config_in(tmp_path / "theirs")


def test_a_script_that_lies_in_the_current_folder_is_no_metric(tmp_path: Path, monkeypatch):
    pytest.importorskip("evaluate", reason="the evaluate extra is not installed")
    monkeypatch.chdir(tmp_path)
    for name in ("accuracy", "someone/metric"):
        script = tmp_path / name / f"{Path(name).name}.py"
        script.parent.mkdir(parents=True)
        script.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'canary')!r}).write_text('run')\n")
    with pytest.raises(UserError, match=r"Write evaluate:\./accuracy"):
        compute("evaluate:accuracy", [0], [0])
    for name in ("someone/metric", "accuracy/accuracy.py", "someone/elsewhere"):
        with pytest.raises(UserError, match=r"so it is not run\. Download it"):
            compute(f"evaluate:{name}", [0], [0])
    assert not (tmp_path / "canary").exists()
    with pytest.raises(UserError, match="evaluate cannot load it"):  # it was run, and holds no metric
        compute("evaluate:./accuracy", [0], [0])
    assert (tmp_path / "canary").exists()


def test_reading_a_gguf_file_shows_no_bar(monkeypatch: pytest.MonkeyPatch, capfd):
    """Also in a log, and with --quiet."""

    class Auto:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> tuple[str, dict[str, Any]]:
            return str(sum(of_transformers.tqdm([1, 2]))), {}

    bar = of_transformers.tqdm
    monkeypatch.setattr(loads, "_auto_class", lambda _: Auto)
    config: Any = None
    assert loads.model_of_gguf("causal_lm", config, Path(), "small.gguf") == ("3", {})
    assert capfd.readouterr().err == ""
    assert of_transformers.tqdm is bar
