"""Git clones and hub stand-ins to publish to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from momentum_bench.harness.records.schema import RunRecord
from tests.conftest import cli_environment
from tests.helpers.submissions import specs, whole_record


def records(task: str) -> list[RunRecord]:
    return [whole_record(spec.model_copy(update={"task": task})) for spec in specs()]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout


def publishing(*words: object, **environment: str) -> subprocess.Popen[str]:
    """`momentum-bench leaderboard publish` in a process of its own."""
    code = "from momentum_bench.harness.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "leaderboard", "publish", *map(str, words)],
        env=cli_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def checked_out(clone: Path, folder: Path, branch: str = "leaderboard") -> Path:
    subprocess.run(["git", "clone", "-q", "-b", branch, str(clone), str(folder)], check=True)
    return folder


TOKEN = "hf_ThisIsASecretOfThisTest"


def hub_environment(address: str, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
