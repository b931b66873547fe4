"""`momentum-bench optimizers`: which optimizers there are, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from momentum_bench.harness.cli.exits import EXIT_DEPARTURES, plain_errors
from momentum_bench.harness.cli.output import json_option, json_text, print_listing, quiet_option
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.messages import note
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer, names_of_packages
from momentum_bench.harness.optimizers.registry import FROM_LIBRARIES, OPTIMIZERS, TWINS
from momentum_bench.harness.records.schema import setting_text

app = typer.Typer(no_args_is_help=True, help="The optimizers: list them, show one, try one on a toy model.")

NAME = typer.Argument(
    help="An optimizer as `--optimizers` takes it, for example torch.optim.NAdam, or a Python file"
)


@app.command("list")
def list_optimizers(
    quiet: Annotated[bool, quiet_option("the names of the optimizers")] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """List the optimizers that have a name: a table on a terminal, tab-separated lines elsewhere.

    Any other class runs by its path, for example torch.optim.NAdam.
    """
    with plain_errors("nothing was written"):
        facts = []
        for name in (*OPTIMIZERS, *names_of_packages()):
            try:
                facts.append(_facts(*find_optimizer(name)))
            except UserError as error:  # a broken package hides no other optimizer
                note(f"{name} is left out: {error}")
        # what else is known of a class takes torch and a trial: `show` says it
        for name, path in FROM_LIBRARIES.items():
            update = f"{path}, with the extra `optimizers`"
            facts.append({"name": name, "settings": [], "rate": "its own", "update": update})
        if as_json:
            print(json_text({"optimizers": facts}))
        elif quiet:
            print(*(each["name"] for each in facts), sep="\n")
        else:
            _print_list(facts)


def _facts(name: str, entry: OptimizerEntry) -> dict[str, Any]:
    return {
        "name": name,
        "settings": [*entry.hyperparameters, *entry.constants],
        "rate": "its own" if entry.own_rate else "effective",
        "update": entry.summary,
    }


def _print_list(facts: list[dict[str, Any]]) -> None:
    header = ("name", "settings", "rate", "update")
    rows = [[";".join(v) or "-" if isinstance(v, list) else v for v in each.values()] for each in facts]
    print_listing(header, rows)


@app.command("show")
def show_optimizer(name: Annotated[str, NAME]) -> None:
    """Print what is known about an optimizer: its update, settings, axis, state and default rates."""
    with plain_errors("nothing was written"):
        full, entry = find_optimizer(*_named(name))
        for fact, value in _all_facts(full, entry).items():
            print(f"{fact:<17}{value}")


def _all_facts(name: str, entry: OptimizerEntry) -> Mapping[str, str]:
    used = entry.all_hyperparameters(momentum=0.9)
    facts = {
        "name": name,
        "update": entry.summary,
        "from the sweep": ", ".join(entry.hyperparameters),
        "settings": ", ".join(f"{key}={setting_text(value)}" for key, value in entry.constants.items()),
        "rate": "its own" if entry.own_rate else f"effective; torch's is {entry.torch_rate(used):g} of it",
        "state": ", ".join(sorted(entry.state_tensors(used))),
        "state bytes": f"{entry.state_bytes_per_parameter(used):.3g} for each parameter",
        "weight decay": "yes" if entry.takes_weight_decay else "it takes none",
        "closure": entry.closure.value if entry.closure else "",
        "groups": "by role" if entry.by_role else "those that decay, and biases and norms, which do not",
        "promises": "" if entry.promises else "none; `optimizers check` tries it",
    }
    twins = {arm: other for pair in TWINS for arm, other in (pair, pair[::-1])}
    facts["twin"] = twins.get(name, "")
    facts |= {
        f"rates, {method}": ", ".join(f"{rate:g}" for rate in rates)
        for method, rates in entry.default_rates.items()
    }
    return {fact: value for fact, value in facts.items() if value}


@app.command("check")
def check_optimizer(name: Annotated[str, NAME]) -> None:
    """Try an optimizer on a toy model: its settings and state, and whether its steps can be trusted.

    The exit code is 1 where a fault was found.
    """
    with plain_errors("nothing was written"):
        from momentum_bench.harness.execution import optimizer_check

        n_faults = 0
        for finding in optimizer_check.findings(*_named(name)):
            n_faults += finding.is_fault
            text = finding.text.replace("\n", f"\n{' ' * 12}")
            print(f"{finding.about:<12}{text}", flush=True)
        print(f"{'checked':<12}{n_faults} fault(s)")
    if n_faults:
        raise typer.Exit(EXIT_DEPARTURES)


def _named(name: str) -> tuple[str, tuple[Path, ...]]:
    """An optimizer's name, and the file that has it, where a file was named."""
    return (Path(name).stem, (Path(name),)) if name.endswith(".py") else (name, ())
