"""The commit that a record names."""

from __future__ import annotations

import os
import subprocess

import pytest

from momentum_bench.harness.records.environment import environment
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
