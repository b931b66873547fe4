"""The commit and the processor that a record names."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from momentum_bench.harness.records.environment import _processor, environment
from tests.conftest import ROOT


def test_the_commit_is_named_also_where_another_user_owns_the_checkout(monkeypatch: pytest.MonkeyPatch):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # it may trust all folders
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    refused = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False)
    assert refused.returncode, "git does not act as if another user owned the checkout"
    assert environment()["git_commit"].removesuffix("+") == commit


X86 = """processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 85
model name	: Intel(R) Xeon(R) Processor @ 2.50GHz
stepping	: 7
cpu MHz		: 2499.998

processor	: 1
vendor_id	: GenuineIntel
model		: 86
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (
            X86,
            "vendor_id GenuineIntel, cpu family 6, model 85, stepping 7, "
            "model name Intel(R) Xeon(R) Processor @ 2.50GHz",
        ),
        (ARM, "CPU implementer 0x41, CPU part 0xd0c"),
        ("", "unknown"),
    ],
    ids=["x86", "ARM", "nothing"],
)
def test_the_model_of_the_processor(tmp_path: Path, told: str, wanted: str):
    (tmp_path / "cpuinfo").write_text(told)
    assert _processor(tmp_path / "cpuinfo") == wanted


def test_where_linux_says_nothing_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert _processor(tmp_path / "absent") == "arm"
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert _processor(tmp_path / "absent") == "unknown"
    assert environment()["processor"]
