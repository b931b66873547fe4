"""The command line: `momentum-bench run`, which `harness/run.py` starts too, and what hangs below it."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from harness import __version__, tasks_cli
from harness.errors import UserError
from harness.exits import EXIT_DEPARTURES, EXIT_SOME_FAILED, note, plain_errors
from harness.noise_cli import noise_floor
from harness.ranks import launched, lonely_launch
from harness.study_cli import app as study_app
from harness.sweep import (
    Inputs,
    Sweep,
    check_launcher,
    entry_of,
    expand_suites,
    grid,
    make_sweep,
    next_rates,
    plan,
    rates,
    without_short_tasks,
)
from harness.user_tasks import find_task
from leaderboards.cli import RESULTS
from leaderboards.cli import app as leaderboard_app

if TYPE_CHECKING:
    from harness.records import RunRecord, RunSpec
    from harness.store import Store
    from leaderboards.build import Row

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tasks_cli.app, name="tasks")
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(study_app, name="study")
app.command("noise-floor")(noise_floor)


@app.callback()
def _about() -> None:
    """Does momentum help when a pre-trained language model is fine-tuned on few examples?"""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, show_default=False)


@app.command()
def run(
    task: Annotated[
        str | None, _option("Tasks or suites (see `tasks list`), e.g. sst2,trec or glue (default: bbc_news)")
    ] = None,
    task_file: Annotated[
        Path | None, _option("Python file that defines TASK, a task of your own (default for --task)")
    ] = None,
    model: Annotated[
        str | None, _option("Hub id, folder, or package:NAME of a pip package (default: roberta-large)")
    ] = None,
    method: Annotated[
        str | None, _option("prompt (masked LM), head (classifier) or causal (decoder) (default: prompt)")
    ] = None,
    k: Annotated[int | None, _option("Examples of each class, in train and in dev (default: 16)")] = None,
    seeds: Annotated[
        str | None, _option("Seeds of split, head, order, dropout (default: 13,21,42,87,100)")
    ] = None,
    optimizers: Annotated[
        str | None, _option("One or more, e.g. sgd,sgdm,nesterov (default: sgd,sgdm)")
    ] = None,
    optimizer_file: Annotated[
        Path | None, _option("Python file that defines OPTIMIZER, known by the file's name")
    ] = None,
    learning_rates: Annotated[
        str | None,
        _option("Grid of effective rates (default: prompt, causal: 1e-4 .. 3e-2, head: 3e-3 .. 1; six)"),
    ] = None,
    extend_grid: Annotated[
        int | None, _option("Add rates, at most so often, where the best is on the grid's edge (default: 0)")
    ] = None,
    learning_rate_axis: Annotated[
        str | None, _option("Read the grid as effective rates or as torch's own (default: effective)")
    ] = None,
    momentum: Annotated[float | None, _option("beta of all optimizers that have one (default: 0.9)")] = None,
    protocol: Annotated[str | None, _option("Set of defaults: mezo or lm-bff (default: mezo)")] = None,
    batch_size: Annotated[int | None, _option("Global batch, whatever the hardware (default: 8)")] = None,
    gradient_accumulation_steps: Annotated[
        int | None, _option("Micro-batches of a batch (default: 1)")
    ] = None,
    max_steps: Annotated[
        int | None, _option("Optimizer steps of a run; 0: zero-shot (default: 1000)")
    ] = None,
    eval_every: Annotated[int | None, _option("Steps between scorings of dev (default: 100)")] = None,
    lr_schedule: Annotated[
        str | None, _option("linear, constant, cosine or step (default: linear; images: step)")
    ] = None,
    decay_steps: Annotated[
        str | None, _option("Of the schedule step: a tenth of the rate after each, e.g. 500,750")
    ] = None,
    warmup_steps: Annotated[int | None, _option("Steps of linear warm-up (default: 0)")] = None,
    weight_decay: Annotated[
        float | None, _option("Coupled (adamw, signsgd: decoupled); matrices only (default: 0)")
    ] = None,
    max_grad_norm: Annotated[
        str | None, _option("Clip the global gradient norm, or none (default: 1.0)")
    ] = None,
    test_limit: Annotated[str | None, _option("Test rows at most, or none (default: mezo: 1000)")] = None,
    dropout: Annotated[
        float | None, _option("Probability in the whole model (default: the model's own)")
    ] = None,
    precision: Annotated[
        str | None,
        _option("fp32, bf16 (autocast), medium (CPU), tf32 (GPU); weights stay fp32 (default: fp32)"),
    ] = None,
    threads_per_run: Annotated[int | None, _option("CPU threads of a run (default: 1)")] = None,
    peft: Annotated[
        str | None, _option("Train an adapter: lora, prefix, prompt, ia3 or none (default: none)")
    ] = None,
    freeze: Annotated[
        str | None, _option("Do not train: embeddings, encoder (all but the head) or none (default: none)")
    ] = None,
    data_dir: Annotated[
        Path | None, _option("Read DIR/TASK/{train,validation,test}.{jsonl,jsonl.gz,csv,tsv,parquet}")
    ] = None,
    output_dir: Annotated[Path | None, _option("Where records and tables go (default: results)")] = None,
    sweep: Annotated[Path | None, _option("TOML file with the same names; flags override it")] = None,
    deterministic: Annotated[
        bool | None, _option("Algorithms that give the same bits on a GPU, too", "--deterministic")
    ] = None,
    cuda_graphs: Annotated[
        bool | None, _option("On a GPU: record a training step, replay it (SGD, SGDM)", "--cuda-graphs")
    ] = None,
    data_parallel: Annotated[
        bool, _option("All ranks of the launch share each batch of one run", "--data-parallel")
    ] = False,
    log_with: Annotated[
        str | None, _option("Show finished runs in tensorboard, wandb, trackio or mlflow (default: none)")
    ] = None,
    executor: Annotated[
        str | None, _option("local, or ray: a cluster, where Ray places the runs (default: local)")
    ] = None,
    ray_address: Annotated[
        str | None, _option("auto, or HOST:PORT of `ray start --head` (default: a cluster of this machine)")
    ] = None,
    gpus_per_run: Annotated[
        float | None, _option("For Ray: 0.5 packs two runs on a GPU (default: 1 where there are GPUs)")
    ] = None,
    workers: Annotated[
        int | None,
        _option(
            "Runs at a time in each process of a launch, so on its GPU; no effect on results "
            "(default: by cores and memory; 1 on a GPU and under a launcher)"
        ),
    ] = None,
    runs_per_gpu: Annotated[
        str | None, _option("Runs at a time on each GPU, or auto: as many as its memory holds (default: 1)")
    ] = None,
    checkpoint_every: Annotated[
        int | None, _option("Steps after which a run is saved, to be resumed; no effect on results")
    ] = None,
    retry_failed: Annotated[bool, _option("Run again what is recorded as failed", "--retry-failed")] = False,
    dry_run: Annotated[bool, _option("Print the runs and which of them are there", "--dry-run")] = False,
) -> None:
    """Fine-tune over a grid of learning rates, SGD against SGDM, and build the leaderboard.

    Without --task it is the quick start: bbc_news, a task that pip carries, on all-MiniLM-L6-v2 by
    --method head, with 3 seeds and a small grid. Finished runs are never run again: type the same
    command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    flags = {name: value for name, value in given.items() if name in Sweep.model_fields}
    if data_parallel:
        flags["data_parallel_ranks"] = launched().ranks
    with plain_errors("finished runs are kept, type the same command to go on"):
        asked = make_sweep(flags, sweep)
        request, left_out = expand_suites(asked)
        for message in left_out:
            note(message)
        check_launcher(request)
        _run_sweep(request, asked.task, dry_run, retry_failed)


def _run_sweep(sweep: Sweep, named: Sequence[str], dry_run: bool, retry_failed: bool) -> None:
    from harness.models import resolve_model
    from harness.records import Plan
    from harness.shares import longest_first, share_out, work
    from harness.sources import load_task_data
    from harness.store import Store

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's warning is a Ctrl-C
    store = Store(sweep.output_dir)
    if store.exists:
        store.check_version()
    data = [load_task_data(find_task(name, sweep.task_file), sweep.data_dir) for name in sweep.task]
    sweep, data, left_out = without_short_tasks(sweep, data, named)
    for message in left_out:
        note(message)
    source = resolve_model(sweep.model)
    specs = plan(sweep, data, source.name, source.revision)
    of_task = {rows.task.name: rows for rows in data}
    amounts = [work(spec, of_task[spec.task]) for spec in specs]
    if not dry_run:
        store.open()  # not before all else is known to be right: a mistake leaves nothing behind
        store.keep_plan(Plan(specs=tuple(specs), work=tuple(amounts)))
    finished = store.finished(specs)
    note(f"{_arithmetic(sweep, specs)}; {len(finished)} of them already there")
    for rows in data:
        note(f"{rows.task.name}: {len(rows.train)} train rows, {len(rows.test)} test rows, {rows.origin}")
    note(f"{source.name}: revision {source.revision}")
    if sweep.peft and sweep.learning_rates is None:
        note(f"the default rates are those of whole models: --peft {sweep.peft} may want --extend-grid 3")
    rank, ranks, _ = launched()
    if alone := lonely_launch():
        note(f"note: {alone}")
    redo = {"failed"} if retry_failed else set()
    inputs = Inputs(sweep.model, sweep.data_dir, sweep.optimizer_file, sweep.task_file)
    added: dict[tuple[str, str], tuple[float, ...]] = {}
    together = sweep.data_parallel_ranks is not None
    if together and rank and not dry_run:
        return _follow(inputs, sweep.precision)
    # Ranks start at different moments, so a rank's share must not depend on what is finished by now.
    fresh = longest_first(specs, amounts) if together else share_out(specs, amounts, ranks)[rank]
    for extensions_left in range(sweep.extend_grid, -1, -1):
        share = [s for s in fresh if s.run_id not in finished or finished[s.run_id].status in redo]
        if (share or together) and not dry_run:
            _execute(sweep, share, inputs, store, retry_failed, ranks)
            finished = store.finished(specs)
        if len(finished) < len(specs) or not extensions_left:
            break
        more = extended(sweep, list(finished.values()), added)
        if more == added:
            break
        note(f"a best rate is on the edge of its grid; now {_grids(sweep, more)}")
        added, planned = more, {spec.run_id for spec in specs}
        specs = plan(sweep, data, source.name, source.revision, added)
        amounts = [work(spec, of_task[spec.task]) for spec in specs]
        store.keep_plan(Plan(specs=tuple(specs), work=tuple(amounts)))
        fresh = [spec for spec in longest_first(specs, amounts) if spec.run_id not in planned]
        finished = store.finished(specs)
    if dry_run:
        _show_matrix(specs, finished)
    elif len(finished) < len(specs):
        note(f"rank {rank} is done; the last rank to finish builds the leaderboard")
    elif share or rank == 0:
        _finish(store, finished)


def extended(
    sweep: Sweep, runs: Sequence[RunRecord], added: Mapping[tuple[str, str], tuple[float, ...]]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """`added` with one more rate at each edge where some optimizer's best rate of some seed lies.

    Optimizers that share a grid of effective rates get the same ones, so none is searched more finely
    than another. One that has only its own rates shares no axis and grows alone.

    Args:
        runs: all runs of the plan with `added`, finished.
    """
    more = dict(added)
    for task in sweep.task:
        sharing: dict[tuple[str, tuple[float, ...]], list[str]] = {}
        for name in sweep.optimizers:
            axis = name if entry_of(sweep, name).own_rate else "effective"
            tried = (*grid(sweep, task, name), *added.get((task, name), ()))
            sharing.setdefault((axis, tried), []).append(name)
        for (_, tried), names in sharing.items():
            edges = [
                edges_hit([r for r in runs if (r.spec.task, r.spec.optimizer) == (task, n)]) for n in names
            ]
            new = next_rates(tried, any(low for low, _ in edges), any(high for _, high in edges))
            if new:
                more |= {(task, name): (*added.get((task, name), ()), *new) for name in names}
    return more


def edges_hit(runs: Sequence[RunRecord]) -> tuple[bool, bool]:
    """Whether some seed's best rate, by dev, is the lowest and whether one is the highest tried.

    A seed whose every run diverged asks for lower rates. Failed runs say nothing.

    Args:
        runs: of one task and optimizer.
    """
    from leaderboards.build import dev_result
    from leaderboards.selection import select

    low = high = False
    for seed in {run.spec.seed for run in runs}:
        of_seed = {run.spec.run_id: run for run in runs if run.spec.seed == seed}
        tried = [run.spec.learning_rate for run in of_seed.values()]
        results = [dev_result(run) for run in of_seed.values() if run.status == "done"]
        if results:
            best = of_seed[select(results, tried).run_id].spec.learning_rate
            low, high = low or best == min(tried), high or best == max(tried)
        else:
            low = low or any(run.status == "diverged" for run in of_seed.values())
    return low, high


def _grids(sweep: Sweep, added: Mapping[tuple[str, str], tuple[float, ...]]) -> str:
    """The rates in force of those grids that have grown."""
    names: dict[str, list[str]] = {}
    for task, name in added:
        text = " ".join(f"{rate:g}" for rate in rates(sweep, task, name, added))
        names.setdefault(f"of {task} at {text}", []).append(name)
    return "; ".join(f"{', '.join(optimizers)} {where}" for where, optimizers in names.items())


def _follow(inputs: Inputs, precision: str) -> None:
    from harness.data_parallel import follow
    from harness.executor import prepare

    follow(prepare([], inputs, precision, together=True))


def _execute(
    sweep: Sweep, todo: list[RunSpec], inputs: Inputs, store: Store, retry_failed: bool, ranks: int
) -> None:
    from tqdm import tqdm

    from harness.executor import Job, bytes_to_come, default_workers, execute, prepare, workers_on_gpu

    bench = prepare(todo, inputs, sweep.precision, together=sweep.data_parallel_ranks is not None)
    for task, short in {s.task: bench.split(s).facts.short_classes for s in todo}.items():
        if short:
            note(f"warning: {task} has fewer than 2 x {sweep.k} training rows of {', '.join(short)}")
    if sweep.runs_per_gpu:
        workers = workers_on_gpu(bench, todo, sweep.runs_per_gpu)
    else:
        # ranks share a machine, all of which each would take for its own
        workers = sweep.workers or (1 if ranks > 1 else default_workers(bench, todo))
    workers = max(1, min(workers, len(todo)))
    device = bench.accelerator.device.type
    places = f"{ranks} process(es) on {device}, {workers} worker(s)" if sweep.executor == "local" else "Ray"
    note(
        f"{places}, {sweep.threads_per_run} thread(s) a "
        f"run, {sweep.precision}, gradient accumulation {sweep.gradient_accumulation_steps}"
    )
    on_terminal = sys.stderr.isatty()
    job = Job(inputs, sweep.precision, store, retry_failed, sweep.checkpoint_every, sweep.log_with)
    store.check_space(bytes_to_come(todo, job, bench, workers))
    if sweep.executor == "ray":
        from harness.ray_executor import execute_on_ray

        results = execute_on_ray(todo, job, sweep.ray_address, sweep.gpus_per_run)
    else:
        results = execute(todo, job, bench, workers, on_terminal)
    with tqdm(total=len(todo), desc="runs", disable=not on_terminal) as bar:
        for number, record in enumerate(results, 1):
            bar.update()
            bar.write(f"[{number}/{len(todo)}] {_outcome(record)}", file=sys.stderr)


def _outcome(record: RunRecord) -> str:
    if record.best is None or record.costs is None or record.test is None:
        return f"{record.spec.label}: {record.status} ({record.failure})"
    seconds = record.costs.train_seconds + record.costs.dev_seconds + record.costs.test_seconds
    return f"{record.spec.label}: dev {record.best.dev_metric:.4f}, {seconds:.1f} s"


def _finish(store: Store, finished: dict[str, RunRecord]) -> None:
    from harness.store import disk_errors
    from leaderboards.build import build
    from leaderboards.display import show
    from leaderboards.outputs import write

    with disk_errors(store.output_dir), store.alone():
        store.clear_finished()
        board = build(store)
        write(board, store.output_dir)
    show(board, Console())
    print(", ".join(str(store.output_dir / name) for name in RESULTS))
    if failed := [record for record in finished.values() if record.status == "failed"]:
        note(f"{len(failed)} run(s) failed, the first: {_outcome(failed[0])}")
        raise typer.Exit(EXIT_SOME_FAILED)


def _arithmetic(sweep: Sweep, specs: list[RunSpec]) -> str:
    """The size of the grid, as a product where the arms share one grid."""
    if not sweep.max_steps:
        return f"{len(sweep.task)} task(s) x {len(sweep.seeds)} seeds = {len(specs)} runs without training"
    sizes = {len(rates(sweep, task, name)) for task in sweep.task for name in sweep.optimizers}
    rates_text = f"{sizes.pop()} rates" if len(sizes) == 1 else "own grids of rates"
    return (
        f"{len(sweep.task)} task(s) x {len(sweep.optimizers)} optimizers x {rates_text} x "
        f"{len(sweep.seeds)} seeds = {len(specs)} runs of {sweep.max_steps} steps x batch "
        f"{sweep.batch_size}"
    )


def _show_matrix(specs: list[RunSpec], finished: dict[str, RunRecord]) -> None:
    seeds = list(dict.fromkeys(spec.seed for spec in specs))
    table = Table(title="Runs by effective rate and seed", title_justify="left", box=box.SIMPLE)
    for header in ("task", "optimizer", "rate", *map(str, seeds)):
        table.add_column(header, no_wrap=True)
    lines: dict[tuple, dict[int, str]] = {}
    for spec in specs:
        record = finished.get(spec.run_id)
        line = lines.setdefault((spec.task, spec.optimizer, spec.learning_rate), {})
        line[spec.seed] = record.status if record else "missing"
    for (task, optimizer, rate), cells in sorted(lines.items()):
        table.add_row(task, optimizer, f"{rate:g}", *(cells[seed] for seed in seeds))
    Console().print(table)


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The results directory of a sweep")],
) -> None:
    """Show which runs are done, running, diverged, failed or missing, and the time left."""
    from harness.status import status_of, tables, time_left
    from harness.store import Store

    with plain_errors("nothing was changed"):
        store = Store(directory)
        store.check_version()
        runs = status_of(store)
        for table in tables(runs):
            Console().print(table)
        print(time_left(runs))


@app.command()
def reproduce(
    row_id: Annotated[str, typer.Argument(help="The row_id of leaderboard.csv, or how it begins")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The results directory with its runs")],
    run_into: Annotated[
        Path | None, _option("Run the sweep into this new directory, and compare", "--run")
    ] = None,
    model: Annotated[Path | None, _option("With --run: the row's model folder")] = None,
    data_dir: Annotated[Path | None, _option("With --run: as for `run`")] = None,
    task_file: Annotated[Path | None, _option("With --run: as for `run`")] = None,
    optimizer_file: Annotated[Path | None, _option("With --run: as for `run`")] = None,
    workers: Annotated[int | None, _option("With --run: as for `run`")] = None,
) -> None:
    """Print the sweep behind a row as a file for `run --sweep`, with what must be at hand to run it.

    With --run, run it and compare each run with the row's: exit code 1 where anything came out otherwise.
    """
    from leaderboards.archive import store_of
    from leaderboards.build import rows_of
    from leaderboards.reproduce import row_of, sweep_text

    with plain_errors("nothing was changed, but for runs in the directory of --run"):
        store = store_of(directory)
        store.check_version()
        row = row_of(rows_of(store.records()), row_id)
        if run_into is None:
            print(sweep_text(row), end="")
            return
        inputs = {"model": model, "data_dir": data_dir, "workers": workers}
        inputs |= {"task_file": task_file, "optimizer_file": optimizer_file}
        given = {name: str(value) for name, value in inputs.items() if value is not None}
        same = _run_again(row, given | {"output_dir": str(run_into)})
    if not same:
        raise typer.Exit(EXIT_DEPARTURES)


def _run_again(row: Row, given: Mapping[str, str]) -> bool:
    """Run a row's sweep into a new directory; whether all came out the same, said line by line."""
    from harness.models import resolve_model
    from harness.sources import load_task_data
    from harness.store import Store, write_atomically
    from leaderboards.reproduce import check_planned, circumstances, differences, sweep_text

    store, text = Store(Path(given["output_dir"])), sweep_text(row)
    kept = store.output_dir / "sweep.toml"
    begun = kept.is_file() and kept.read_text(encoding="utf-8") == text  # and interrupted: it goes on
    if not begun and store.output_dir.exists() and any(store.output_dir.iterdir()):
        raise UserError(f"--run {store.output_dir} is there and not empty: name a new directory")
    name = row.runs[0].spec.model
    if name.startswith("local:") and "model" not in given:
        raise UserError(f"the row's model is a folder named {name.removeprefix('local:')}: add --model PATH")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "sweep.toml")
        file.write_text(text, encoding="utf-8")
        sweep = make_sweep(given, file)
    check_launcher(sweep)
    source = resolve_model(sweep.model)
    data = [load_task_data(find_task(task, sweep.task_file), sweep.data_dir) for task in sweep.task]
    check_planned(row, plan(sweep, data, source.name, source.revision))
    store.open()
    with store.alone():
        write_atomically(kept, text)
    with suppress(typer.Exit):  # a run that failed is a difference, named below
        _run_sweep(sweep, sweep.task, dry_run=False, retry_failed=False)
    again = store.records()
    found = differences(row, again)
    for line in found:
        print(line)
    for line in circumstances(row, again):
        note(line)
    note(f"row {row.row_id}, {len(row.runs)} runs: {len(found) or 'no'} difference(s)")
    return not found


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line: exit code 0 when done, 1 when a run failed, 2 on wrong usage."""
    words = [_with_dashes(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    app(words)
    sys.exit(0)


def _with_dashes(word: str) -> str:
    """`--learning_rates=1` as `--learning-rates=1`: both spellings are in use in this field."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
