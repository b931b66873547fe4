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
from rich.text import Text

from momentum_bench.harness.cli.exits import EXIT_SOME_FAILED, plain_errors
from momentum_bench.harness.cli.leaderboard import RESULTS
from momentum_bench.harness.launcher import launched
from momentum_bench.harness.messages import note, print_table, printable
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import Sweep

if TYPE_CHECKING:
    from momentum_bench.harness.execution.plan_sweep import SweepEvents
    from momentum_bench.harness.records.schema import RunRecord, RunSpec
    from momentum_bench.harness.records.store import Store


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

        from momentum_bench.harness.execution.plan_sweep import plan_sweep

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's warning is a Ctrl-C
        events = terminal_events()
        planned = plan_sweep(asked, events)
        if dry_run:
            for _ in range(planned.sweep.extend_grid):
                planned = planned.grown() or planned
            _show_matrix(planned.specs, planned.finished())
            return

        from momentum_bench.harness.execution.run_sweep import run_sweep

        outcome = run_sweep(planned, events, retry_failed)
        if outcome.builds_board:
            build_board(planned.store)
        failed = [record for record in outcome.records.values() if record.status == "failed"]
    if outcome.builds_board and failed:
        note(f"{len(failed)} run(s) failed, the first: {_in_a_line(failed[0])}")
        raise typer.Exit(EXIT_SOME_FAILED)


def terminal_events() -> SweepEvents:
    """What a sweep tells, as lines on stderr and, where that is a terminal, progress bars."""
    from tqdm import tqdm

    from momentum_bench.harness.execution.plan_sweep import SweepEvents

    class TerminalEvents(SweepEvents):
        shows_steps = sys.stderr.isatty()

        def message(self, text: str) -> None:
            note(text)

        def begun(self, n_runs: int) -> None:
            self.bar = tqdm(total=n_runs, desc="runs", disable=not self.shows_steps)

        def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
            self.bar.update()
            self.bar.write(f"[{number}/{n_runs}] {_in_a_line(record)}", file=sys.stderr)
            if number == n_runs:
                self.bar.close()

    return TerminalEvents()


def build_board(store: Store) -> None:
    """Build the leaderboard of all finished runs of a directory, and print it."""
    from momentum_bench.harness.records.files import disk_errors
    from momentum_bench.leaderboards.build import build
    from momentum_bench.leaderboards.rendering.files import write
    from momentum_bench.leaderboards.rendering.terminal import print_board

    with disk_errors(store.output_dir), store.alone():
        store.clear_finished()
        board = build(store)
        write(board, store.output_dir)
    print_board(board, Console())
    print(", ".join(str(store.output_dir / name) for name in RESULTS))


def _in_a_line(record: RunRecord) -> str:
    if record.best is None or record.costs is None or record.test is None:
        return f"{record.spec.label}: {record.status} ({record.failure})"
    seconds = record.costs.train_seconds + record.costs.dev_seconds + record.costs.test_seconds
    return f"{record.spec.label}: dev {record.best.dev_metric:.4f}, {seconds:.1f} s"


def _show_matrix(specs: Sequence[RunSpec], finished: Mapping[str, RunRecord]) -> None:
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
        texts = (task, optimizer, f"{rate:g}", *(cells[seed] for seed in seeds))
        table.add_row(*(Text(printable(text)) for text in texts))
    print_table(table, Console())
