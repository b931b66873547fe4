"""`momentum-bench run`, which `harness/run.py` starts too: from flags to a leaderboard."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from momentum_bench.harness.cli.exits import EXIT_SOME_FAILED, plain_errors
from momentum_bench.harness.cli.leaderboard import RESULTS
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.launcher import launched, lonely_launch
from momentum_bench.harness.messages import note
from momentum_bench.harness.sweeps.grids import rates
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.harness.sweeps.suites import expand_suites, without_short_tasks

if TYPE_CHECKING:
    from momentum_bench.harness.records.schema import RunRecord, RunSpec
    from momentum_bench.harness.records.store import Store

from momentum_bench.harness.sweeps.grids import extended


def option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, show_default=False)


def run(
    task: Annotated[
        str | None, option("Tasks or suites (see `tasks list`), e.g. sst2,trec or glue (default: bbc_news)")
    ] = None,
    task_file: Annotated[
        Path | None, option("Python file that defines TASK, a task of your own (default for --task)")
    ] = None,
    model: Annotated[
        str | None, option("Hub id, folder, or package:NAME of a pip package (default: roberta-large)")
    ] = None,
    method: Annotated[
        str | None, option("prompt (masked LM), head (classifier) or causal (decoder) (default: prompt)")
    ] = None,
    k: Annotated[int | None, option("Examples of each class, in train and in dev (default: 16)")] = None,
    seeds: Annotated[
        str | None, option("Seeds of split, head, order, dropout (default: 13,21,42,87,100)")
    ] = None,
    optimizers: Annotated[
        str | None, option("One or more, e.g. sgd,sgdm,nesterov (default: sgd,sgdm)")
    ] = None,
    optimizer_file: Annotated[
        Path | None, option("Python file that defines OPTIMIZER, known by the file's name")
    ] = None,
    learning_rates: Annotated[
        str | None,
        option("Grid of effective rates (default: prompt, causal: 1e-4 .. 3e-2, head: 3e-3 .. 1; six)"),
    ] = None,
    extend_grid: Annotated[
        int | None, option("Add rates, at most so often, where the best is on the grid's edge (default: 0)")
    ] = None,
    learning_rate_axis: Annotated[
        str | None, option("Read the grid as effective rates or as torch's own (default: effective)")
    ] = None,
    momentum: Annotated[float | None, option("beta of all optimizers that have one (default: 0.9)")] = None,
    protocol: Annotated[str | None, option("Set of defaults: mezo or lm-bff (default: mezo)")] = None,
    batch_size: Annotated[int | None, option("Global batch, whatever the hardware (default: 8)")] = None,
    gradient_accumulation_steps: Annotated[
        int | None, option("Micro-batches of a batch (default: 1)")
    ] = None,
    max_steps: Annotated[int | None, option("Optimizer steps of a run; 0: zero-shot (default: 1000)")] = None,
    eval_every: Annotated[int | None, option("Steps between scorings of dev (default: 100)")] = None,
    lr_schedule: Annotated[
        str | None, option("linear, constant, cosine or step (default: linear; images: step)")
    ] = None,
    decay_steps: Annotated[
        str | None, option("Of the schedule step: a tenth of the rate after each, e.g. 500,750")
    ] = None,
    warmup_steps: Annotated[int | None, option("Steps of linear warm-up (default: 0)")] = None,
    weight_decay: Annotated[
        float | None, option("Coupled (adamw, signsgd: decoupled); matrices only (default: 0)")
    ] = None,
    max_grad_norm: Annotated[
        str | None, option("Clip the global gradient norm, or none (default: 1.0)")
    ] = None,
    test_limit: Annotated[str | None, option("Test rows at most, or none (default: mezo: 1000)")] = None,
    dropout: Annotated[
        float | None, option("Probability in the whole model (default: the model's own)")
    ] = None,
    precision: Annotated[
        str | None,
        option("fp32, bf16 (autocast), medium (CPU), tf32 (GPU); weights stay fp32 (default: fp32)"),
    ] = None,
    threads_per_run: Annotated[int | None, option("CPU threads of a run (default: 1)")] = None,
    peft: Annotated[
        str | None, option("Train an adapter: lora, prefix, prompt, ia3 or none (default: none)")
    ] = None,
    freeze: Annotated[
        str | None, option("Do not train: embeddings, encoder (all but the head) or none (default: none)")
    ] = None,
    data_dir: Annotated[
        Path | None, option("Read DIR/TASK/{train,validation,test}.{jsonl,jsonl.gz,csv,tsv,parquet}")
    ] = None,
    output_dir: Annotated[Path | None, option("Where records and tables go (default: results)")] = None,
    sweep: Annotated[Path | None, option("TOML file with the same names; flags override it")] = None,
    deterministic: Annotated[
        bool | None, option("Algorithms that give the same bits on a GPU, too", "--deterministic")
    ] = None,
    cuda_graphs: Annotated[
        bool | None, option("On a GPU: record a training step, replay it (SGD, SGDM)", "--cuda-graphs")
    ] = None,
    data_parallel: Annotated[
        bool, option("All ranks of the launch share each batch of one run", "--data-parallel")
    ] = False,
    log_with: Annotated[
        str | None, option("Show finished runs in tensorboard, wandb, trackio or mlflow (default: none)")
    ] = None,
    executor: Annotated[
        str | None, option("local, or ray: a cluster, where Ray places the runs (default: local)")
    ] = None,
    ray_address: Annotated[
        str | None, option("auto, or HOST:PORT of `ray start --head` (default: a cluster of this machine)")
    ] = None,
    gpus_per_run: Annotated[
        float | None, option("For Ray: 0.5 packs two runs on a GPU (default: 1 where there are GPUs)")
    ] = None,
    workers: Annotated[
        int | None,
        option(
            "Runs at a time in each process of a launch, so on its GPU; no effect on results "
            "(default: by cores and memory; 1 on a GPU and under a launcher)"
        ),
    ] = None,
    runs_per_gpu: Annotated[
        str | None, option("Runs at a time on each GPU, or auto: as many as its memory holds (default: 1)")
    ] = None,
    checkpoint_every: Annotated[
        int | None, option("Steps after which a run is saved, to be resumed; no effect on results")
    ] = None,
    retry_failed: Annotated[bool, option("Run again what is recorded as failed", "--retry-failed")] = False,
    dry_run: Annotated[bool, option("Print the runs and which of them are there", "--dry-run")] = False,
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
        run_sweep(request, asked.task, dry_run, retry_failed)


def run_sweep(sweep: Sweep, named: Sequence[str], dry_run: bool, retry_failed: bool) -> None:
    from momentum_bench.harness.data.load import load_task_data
    from momentum_bench.harness.models.files import resolve_model
    from momentum_bench.harness.records.schema import Plan
    from momentum_bench.harness.records.store import Store
    from momentum_bench.harness.sweeps.plan import longest_first, share_out, work

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


def _grids(sweep: Sweep, added: Mapping[tuple[str, str], tuple[float, ...]]) -> str:
    """The rates in force of those grids that have grown."""
    names: dict[str, list[str]] = {}
    for task, name in added:
        text = " ".join(f"{rate:g}" for rate in rates(sweep, task, name, added))
        names.setdefault(f"of {task} at {text}", []).append(name)
    return "; ".join(f"{', '.join(optimizers)} {where}" for where, optimizers in names.items())


def _follow(inputs: Inputs, precision: str) -> None:
    from momentum_bench.harness.execution.data_parallel import follow
    from momentum_bench.harness.execution.prepare import prepare

    follow(prepare([], inputs, precision, together=True))


def _execute(
    sweep: Sweep, todo: list[RunSpec], inputs: Inputs, store: Store, retry_failed: bool, ranks: int
) -> None:
    from tqdm import tqdm

    from momentum_bench.harness.execution.capacity import bytes_to_come, default_workers, workers_on_gpu
    from momentum_bench.harness.execution.job import Job
    from momentum_bench.harness.execution.local import execute
    from momentum_bench.harness.execution.prepare import prepare

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
        from momentum_bench.harness.execution.ray_cluster import execute_on_ray

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
    from momentum_bench.harness.records.files import disk_errors
    from momentum_bench.leaderboards.build import build
    from momentum_bench.leaderboards.rendering.files import write
    from momentum_bench.leaderboards.rendering.terminal import show

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
