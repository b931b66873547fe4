"""The example notebook runs from its top to its end, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SOURCES, needs_quickstart

WHY = "the extra `test` is not installed"
nbclient = pytest.importorskip("nbclient", reason=WHY)
nbformat = pytest.importorskip("nbformat", reason=WHY)
pytest.importorskip("ipykernel", reason=WHY)

NOTEBOOK = ROOT / "docs" / "examples" / "first_board.ipynb"


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs_and_paths():
    notebook = read()
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    for path in (str(ROOT), str(Path.home()), "/tmp/"):
        assert path not in NOTEBOOK.read_text()


@pytest.mark.slow
@needs_quickstart
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "12 done" in _text(shown["results = mb.run(sweep)\nresults"])
    assert _text(shown["mb.run(sweep, events=mb.SweepEvents()) == results"]) == "True"
    (board,) = [output for output in shown["board = results.leaderboard()\nboard"] if "data" in output]
    assert "<table" in board.data["text/html"]
    assert "SGDM" in board.data["text/html"]
    assert (tmp_path / "first_board" / "leaderboard.csv").is_file()
    assert (tmp_path / "first_board_page" / "index.html").is_file()


def _text(outputs: list[Any]) -> str:
    return "".join(output.data["text/plain"] for output in outputs if output.output_type == "execute_result")


def test_a_notebook_shows_a_bar_and_no_line_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    code = (
        "from momentum_bench.harness.api.progress import ProgressBar\n"
        "from tests.helpers.specs import make_record\n"
        "with ProgressBar() as bar:\n"
        "    bar.begun(2)\n"
        "    bar.finished(1, 2, make_record(seed=13))\n"
        "    bar.finished(2, 2, make_record(seed=21, status='failed'))\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(ROOT)}}).execute()
    (cell,) = notebook.cells
    written = "".join(output.get("text", "") for output in cell.outputs)
    assert "2/2" in written + str([output.get("data") for output in cell.outputs])
    assert "[1/2]" not in written
    assert written.count("seed 21: failed") >= 1
