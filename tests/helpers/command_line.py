"""The real command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT, cli_environment


def run_command(*words: object) -> subprocess.CompletedProcess[str]:
    """The installed command, piped, in a process of its own."""
    code = "import sys; from momentum_bench.harness.cli.main import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        env=cli_environment(COLUMNS="40"),
        capture_output=True,
        text=True,
        check=False,
    )
