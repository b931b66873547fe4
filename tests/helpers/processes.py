"""Processes that a test starts, watches and interrupts: they wait for events, never for seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import SOURCES, cli_environment


def plant(folder: Path, code: str) -> dict[str, str]:
    """Write code that each Python process runs when it starts; the environment that makes it do so.

    Code that replaces a function should replace it in a module that loads no torch: processes that
    compute nothing, such as multiprocessing's resource tracker, run this code too.
    """
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(SOURCES)])}


def plant_in_each_step(folder: Path, code: str) -> dict[str, str]:
    """Run `code` ahead of each training step; it may use `seed`, `step`, `os`, `time` and `Path`."""
    return plant(
        folder,
        "import os, time\nfrom pathlib import Path\nfrom momentum_bench.harness import seeds\n"
        "batch_indices = seeds.batch_indices\n"
        "def planted(seed, step, n, batch_size):\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
        + "    return batch_indices(seed, step, n, batch_size)\n"
        "seeds.batch_indices = planted\n",
    )


def command_alone(*words: object) -> subprocess.CompletedProcess[str]:
    """`momentum-bench` in a process of its own, for what depends on the modules that are loaded."""
    return subprocess.run(
        [sys.executable, "-m", "momentum_bench", *map(str, words)],
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )


def wait_until(has_happened: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    """Wait for an event that these processes bring about; one that ends before it fails the test.

    There is no limit of time, because a slow machine is no fault. The limit of pytest ends a test
    that waits in vain.
    """
    while True:
        ended = [process for process in processes if process.poll() is not None]
        if has_happened():
            return
        assert not ended, ended[0].communicate()
        time.sleep(0.05)
