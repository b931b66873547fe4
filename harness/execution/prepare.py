"""A session, and everything in it that can fail, before the first run trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator, quiet_libraries
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.metrics.compute import check_available
from momentum_bench.harness.records.schema import RunSpec, Split, drawn
from momentum_bench.harness.training.cuda_graphs import check_recordable
from momentum_bench.harness.training.memory import keep_freed_memory
from momentum_bench.harness.training.session import Session

MOST_UNKNOWN = 0.2
"""The share of unknown tokens, or of texts without words, above which no run begins unless it is forced."""


def new_session(inputs: Inputs, precision: str, together: bool = False, cpu: bool = False) -> Session:
    """A session for this process, whose libraries are set up for runs.

    Args:
        together: whether the ranks of the launch share the batches of each run.
        cpu: use the CPU, whatever else there is.

    Raises:
        UserError: the device does not have that precision, or the ranks were not joined.
    """
    quiet_libraries()
    keep_freed_memory()
    return Session(inputs, make_accelerator(precision, together, cpu, inputs.device))


def prepare_for_others(specs: Sequence[RunSpec], inputs: Inputs, allow_unknown: bool = False) -> Session:
    """What `prepare` gives, for runs that other machines do: what their devices can do, they say themselves.

    Raises:
        UserError: a split, a prompt or a model cannot be built.
    """
    here = new_session(replace(inputs, device=None), "fp32", cpu=True)
    _make_all(specs, here, allow_unknown)
    return here


def prepare(
    specs: Sequence[RunSpec],
    inputs: Inputs,
    precision: str,
    together: bool = False,
    cpu: bool = False,
    allow_unknown: bool = False,
) -> Session:
    """A session with every split, prompt and model of the runs, so that what cannot work fails first.

    Args:
        together: whether the ranks of the launch share the batches of each run.
        cpu: use the CPU, whatever else there is.
        allow_unknown: let runs begin whose texts are largely unknown to the vocabulary.

    Raises:
        UserError: one of them cannot be built, or the vocabulary is not the model's.
    """
    session = new_session(inputs, precision, together, cpu)
    _make_all(specs, session, allow_unknown)
    for spec in specs:
        check_recordable(spec, session)
    return session


def _make_all(specs: Sequence[RunSpec], session: Session, allow_unknown: bool) -> None:
    for spec in specs:
        for metric in session.metrics(spec):
            check_available(metric)
        facts = session.split(spec).facts
        check_batch(spec, facts)
        if not allow_unknown:
            check_vocabulary(spec, facts)


def check_batch(spec: RunSpec, facts: Split) -> None:
    """Raises: UserError, if a batch is larger than the training rows, so that it would repeat them."""
    if spec.max_steps and spec.batch_size > facts.n_train:
        raise UserError(
            f"{spec.task}: --batch-size {spec.batch_size} is more than the {facts.n_train} training rows "
            f"({drawn(spec.k)}): give --batch-size {facts.n_train} for all of them in each step, or less, or "
            f"more rows (--k)"
        )


def check_vocabulary(spec: RunSpec, facts: Split) -> None:
    """Raises: UserError, if much of the texts is unknown to the vocabulary, or gives no tokens at all."""
    shares = {
        "of the tokens are unknown in": facts.unknown_share,
        "of the texts give special tokens alone in": facts.wordless_share,
    }
    for what, share in shares.items():
        if share is not None and share > MOST_UNKNOWN:
            raise UserError(
                f"{spec.task}: {share:.0%} {what} the vocabulary of --model {spec.model}, so little "
                f"could be learned: is its tokenizer complete, and made for this language? To run all "
                f"the same, add --allow-unknown-tokens"
            )


def remarks(spec: RunSpec, facts: Split) -> list[str]:
    """What a person should know of a split before its runs begin, a line each."""
    lines = []
    if facts.n_unknown_tokens:
        lines.append(f"{facts.n_unknown_tokens} of {facts.n_tokens} tokens are unknown to the vocabulary")
    if facts.n_without_words:
        lines.append(f"{facts.n_without_words} of {facts.n_sequences} texts give special tokens alone")
    if facts.n_leaked:
        lines.append(f"{facts.n_leaked} of {facts.n_test} scored test rows are train or dev rows too")
    return [f"warning: {spec.task}, seed {spec.seed}: {line}" for line in lines]
