"""Whether the packages are here with which models are trained. Boards are read and checked without them."""

from __future__ import annotations

from importlib.util import find_spec

from momentum_bench.harness.errors import UserError

OF_RUNS = ("accelerate", "datasets", "peft", "safetensors", "torch", "transformers")
"""The packages of the extra `run`."""


def check_can_run() -> None:
    """Raises: UserError, if a package of the extra `run` is not installed."""
    missing = [name for name in OF_RUNS if find_spec(name) is None]
    if missing:
        raise UserError(
            f"this needs {', '.join(missing)}, and without the extra `run` only the commands that read "
            f"results are installed: pip install 'momentum-bench[run]'"
        )
