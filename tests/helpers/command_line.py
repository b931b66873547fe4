"""The command line in the process of the test, which has loaded its libraries already."""

from __future__ import annotations

import io
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from momentum_bench.harness.cli.main import main


def run_command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `momentum-bench` prints into pipes, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "40"} | environment),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main([str(word) for word in words])
    return subprocess.CompletedProcess(words, int(stopped.value.code or 0), out.getvalue(), err.getvalue())
