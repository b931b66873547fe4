"""Tables as pandas data frames, with types that do not depend on the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MAY_BE_MISSING: Mapping[str, str] = {
    **dict.fromkeys(("dropout", "max_grad_norm", "dev_metric", "dev_loss", "test_metric"), "float64"),
    **dict.fromkeys(("test_loss", "clipped_fraction", "torch_learning_rate"), "float64"),
    **dict.fromkeys(("train_seconds", "dev_seconds", "test_seconds", "accumulated_rate"), "float64"),
    **dict.fromkeys(
        ("best_step", "test_limit", "data_parallel_ranks", "n_seeds_if_equal", "n_seeds_as_observed", "look"),
        "Int64",
    ),
    **dict.fromkeys(("optimizer_state_bytes", "peak_memory_bytes"), "Int64"),
    **dict.fromkeys(("deterministic", "cuda_graphs", "checkpoint_activations"), "boolean"),
    **dict.fromkeys(("failure", "peft", "freeze", "splits"), "str"),
}
"""The type of each column whose values may be None. pandas would infer another one where all are None."""


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A data frame with a row for each mapping; a missing value is pandas' own (NaN or NA).

    Args:
        columns: the names, where there may be no rows; None: those of the rows.
    """
    import pandas as pd

    table = pd.DataFrame([dict(row) for row in rows], columns=list(columns) if columns else None)
    return table.astype({name: kind for name, kind in MAY_BE_MISSING.items() if name in table})
