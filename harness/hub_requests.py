"""Requests to the hub: repeated where the hub asks for patience, and explained where they fail."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from momentum_bench.harness.errors import first_line
from momentum_bench.harness.messages import note

T = TypeVar("T")

ATTEMPTS = 5
LONGEST_WAIT = 120
"""Seconds. Whoever is asked to wait longer had better come back."""

TOO_MANY = 429
PASSING = (TOO_MANY, 500, 502, 503, 504)
"""Statuses of a hub that is busy or being repaired: the same request may work a moment later."""


def patiently(request: Callable[[], T]) -> T:
    """The result of a request, which is repeated while the hub says that it is busy.

    The hub's client repeats downloads of files itself, but not the requests that say which files there are.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return request()
        except Exception as error:
            answer = _refusal(error)
            if answer is None or answer.status_code not in PASSING:
                raise
            seconds = _seconds_to_wait(answer, 2 ** (attempt - 1))
            if seconds > LONGEST_WAIT:
                raise
            note(f"the hub is busy (status {answer.status_code}): asking again in {seconds} s")
            time.sleep(seconds)
    return request()


def hub_problem(error: BaseException, kind: str, name: str, revision: str | None, option: str) -> str | None:
    """Why the hub did not give a repository, and what to do; None: it could not be asked at all.

    Args:
        kind: what it is for people: a model, or a data set.
        revision: what was asked for.
        option: how another revision is asked for.
    """
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    log_in = "log in with `hf auth login` or HF_TOKEN"
    page = f"{ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"
    for each in _chain(error):
        # before what it is a kind of; the library of data sets keeps only its words
        if isinstance(each, errors.GatedRepoError) or "is a gated dataset" in str(each):
            return f"the {kind} {name} is gated: accept its terms at {page}, then {log_in}"
        if isinstance(each, errors.RepositoryNotFoundError):
            return f"the hub has no {kind} {name}, or does not show it to you: check the name, or {log_in}"
        if isinstance(each, errors.RevisionNotFoundError):
            return (
                f"the {kind} {name} has no revision {revision}, or has it no longer: see {page}, and ask for "
                f"another one with {option}"
            )
        if "scripts are no longer supported" in str(each):
            return (
                f"the {kind} {name} is a script at this revision, and no such script is run: its rows may be "
                f"in files at {option.replace('REVISION', 'refs/convert/parquet')}"
            )
    answer = _refusal(error)
    if answer is None:
        return _broken_off(error)
    if answer.status_code == TOO_MANY:
        seconds = _seconds_to_wait(answer, 0)
        when = f"in {seconds} s" if seconds else "later"
        return (
            f"the hub takes no more requests for now (status 429): type the same command {when}, or {log_in}"
        )
    return f"the hub answers {first_line(error)}"


def _broken_off(error: BaseException) -> str | None:
    """What to say where the hub was reached and the connection then broke; None: it was something else."""
    words = ("peer closed connection", "Connection broken", "Consistency check failed")
    if not any(word in str(each) for each in _chain(error) for word in words):
        return None
    return (
        f"the connection broke in the middle of a file, also when it was tried again ({first_line(error)}). "
        f"Files that are whole are kept: type the same command to go on"
    )


def _refusal(error: BaseException) -> Any | None:
    """The hub's answer behind an error, with `status_code` and `headers`; None: there was no answer."""
    from huggingface_hub.errors import HfHubHTTPError

    found = (each for each in _chain(error) if isinstance(each, HfHubHTTPError))
    return next((each.response for each in found if each.response is not None), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    now: BaseException | None = error
    while now is not None:
        yield now
        now = now.__cause__ or now.__context__


def _seconds_to_wait(answer: Any, otherwise: int) -> int:
    """For how many seconds the hub asks to wait. Its own header says it as `"api";r=0;t=55`."""
    asked = answer.headers.get("Retry-After", "").strip()
    limits = re.search(r"\bt=(\d+)", answer.headers.get("RateLimit", ""))
    return int(asked) if asked.isdigit() else int(limits[1]) if limits else otherwise
