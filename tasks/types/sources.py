"""Where the rows or images of a task come from."""

from __future__ import annotations

from pydantic import Field

from momentum_bench.tasks.types.base import Facts


class HubSource(Facts):
    """A data set on the Hugging Face hub.

    Attributes:
        id: the full id, `ORGANISATION/NAME`.
        config: the configuration of the data set, if it has several.
        revision: a branch or a commit. `main` is resolved to a commit when it is first used, and every
            run records that commit.
        text: the text columns of this copy in the order of the task's, if they have other names. Empty: the
            task's names.
        label: the label column of this copy, if it differs from the task's. It holds the names of the
            labels where the numbers of this copy differ from the task's.
    """

    id: str
    config: str | None = None
    revision: str = "main"
    text: tuple[str, ...] = ()
    label: str | None = None


class TextFolders(Facts):
    """Text files inside an installed pip package, one folder for each label. The package is not imported.

    Exact duplicates are dropped: the first by sorted path stays. A text that stands under two labels is
    dropped altogether. A text belongs to the test split if its SHA-256 digest, as an integer modulo
    `modulus`, is in `test_residues`. All other texts are the train split.
    """

    distribution: str
    folder: str
    modulus: int
    test_residues: tuple[int, ...]


class LocalOnly(Facts):
    """There is no known copy to download: the data comes from `--data-dir` alone, and `reason` says why."""

    reason: str


class SklearnDigits(Facts):
    """The 1,797 handwritten digits in scikit-learn's package (8 x 8 pixels, 17 grey levels).

    They have no test split of their own: the images whose position is divisible by `test_every` are test.
    """

    test_every: int = Field(default=4, ge=2)


AnySource = HubSource | TextFolders | LocalOnly | SklearnDigits
"""Where rows or images may come from."""
