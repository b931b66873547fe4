"""Writes docs/findings.md and its plots from the published leaderboards: `python docs/findings.py`.

The words are in findings.md.j2, the numbers come from here. A sentence that interprets a result states the
verdict on which it rests; where a board says something else by now, this program stops, and the sentence must
be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import COLOURS, FAINT, plot_style, svg_text
from momentum_bench.harness.sweeps.confirming import Standing, standings_of
from momentum_bench.harness.verdicts.paired import PairedDifference
from momentum_bench.leaderboards.archive import ARCHIVE, ArchivedStore, store_of
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.over_tasks import over_tasks
from momentum_bench.leaderboards.rate_curve import matched_lines
from momentum_bench.leaderboards.rendering.cells import signed, signed_range
from momentum_bench.leaderboards.rendering.grid_tables import step_cost
from momentum_bench.leaderboards.rendering.plots import BAND, STYLE, forest
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tables import tuned_pairs, tuned_rows
from momentum_bench.leaderboards.tuning import budget_lines, sensitivity_lines
from momentum_bench.leaderboards.twins import Answer, momentum_answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parent
PUBLISHED = DOCS.parent / "leaderboards" / "published"
TEMPLATE, PAGE = "findings.md.j2", "findings.md"
TEXT_PLOT, DIGITS_PLOT, RATES_PLOT = "findings-text.svg", "findings-digits.svg", "findings-rates.svg"

ORDER = (
    "paper-prompt-small",
    "paper-prompt-small-rate",
    "smollm2-causal",
    "minilm-head-512",
    "six-tasks-confirming",
    "six-tasks-minilm-head",
    "digits-momentum",
    "digits-batch-size",
    "rivals-minilm",
)
"""Boards in the order of the page; others follow. Of a comparison on two boards, the first counts."""

RIVALS = "rivals-minilm"
"""It has a section of its own, and no part in the tables on SGD and SGDM."""

Boards = dict[str, Leaderboard]


class Changed(Exception):
    """A board says something else than a sentence of the page."""


def published() -> Boards:
    """All published boards whose designs have had a look, in the order of the page."""
    names = sorted(path.parent.name for path in PUBLISHED.glob(f"*/{ARCHIVE}"))
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    stores = {name: store_of(PUBLISHED / name) for name in names}
    return {name: build(store) for name, store in stores.items() if _has_a_look(store)}


def _has_a_look(store: Store | ArchivedStore) -> bool:
    """Whether there is something to say; a board of many hours is committed now and then while it grows."""
    standings = standings_of(store.designs(), store.records())
    return all(now.has_ended or _seeds_so_far(now) for _, now in standings)


def _seeds_so_far(now: Standing) -> int:
    """Confirming seeds of the last look that a design has had."""
    return max((found.n_seeds for found in now.replayed.pairs.values()), default=0)


def page(boards: Boards) -> str:
    """The text of the page."""
    all_boards, rivals, boards = boards, boards[RIVALS], _without_rivals(boards)
    with_grids = _with_grids(boards)
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string((DOCS / TEMPLATE).read_text(encoding="utf-8")).render(
        designs=partial(_designs, all_boards),
        differences=partial(_differences, boards),
        digits=partial(_digits, boards),
        spread=partial(_spread, boards),
        paper=partial(_said, boards["paper-prompt-small"], "matched"),
        small=partial(_said, boards["paper-prompt-small-rate"], "matched"),
        small_together=partial(_over_tasks, boards["paper-prompt-small-rate"], "matched"),
        score_small=partial(_score, boards["paper-prompt-small-rate"]),
        decoder=partial(_said, boards["smollm2-causal"], "matched"),
        decoder_together=partial(_over_tasks, boards["smollm2-causal"], "matched"),
        score_of_decoder=partial(_score, boards["smollm2-causal"]),
        each_rate=_each_rate(with_grids),
        farthest_below=partial(_farthest_below, boards),
        added_at=partial(_added_at, boards),
        score_at=partial(_score_at, boards),
        confirmed=partial(_said, boards["six-tasks-confirming"], "matched"),
        confirmed_together=partial(_over_tasks, boards["six-tasks-confirming"], "matched"),
        with_512=partial(_said, boards["minilm-head-512"], "matched"),
        score_of_512=partial(_score, boards["minilm-head-512"]),
        six_tasks=partial(_six_tasks, boards),
        sensitivity=partial(_sensitivity, with_grids),
        budget=partial(_budget, with_grids),
        scores_of_rivals=_scores(rivals),
        range_of_rivals=partial(_range, rivals),
        n_decided=partial(_n_decided, rivals, "tuned"),
        rivals_together=partial(_over_tasks, rivals),
        rival=partial(_said, rivals),
        momentum_in_rivals=_momentum(rivals),
    )


def _without_rivals(boards: Boards) -> Boards:
    return {name: board for name, board in boards.items() if name != RIVALS}


def _with_grids(boards: Boards) -> Boards:
    """Without boards of one rate, which have no choice among rates."""
    return {
        name: board for name, board in boards.items() if any(len(row.grid) > 1 for row in tuned_rows(board))
    }


def plots(boards: Boards) -> dict[str, str]:
    """All comparisons of the page as forest plots, SVGs by file name.

    The digits have a plot of their own, because on the axis that they need the text tasks look alike.
    """
    boards = _without_rivals(boards)
    kept = [*_distinct(boards, "matched"), *_distinct(boards, "tuned")]
    digits = [pair for pair in kept if _is_digits(pair.first)]
    text = [pair for pair in kept if not _is_digits(pair.first)]
    first = next(iter(boards.values()))
    return {
        TEXT_PLOT: _forest(first, text),
        DIGITS_PLOT: _forest(first, digits),
        RATES_PLOT: _rates_plot(_with_grids(boards)),
    }


def _forest(board: Leaderboard, pairs: Sequence[Comparison]) -> str:
    rows = list({row.row_id: row for pair in pairs for row in (pair.first, pair.second)}.values())
    names = [f"{_where(pair.first)}: {pair.second.name}, {_question(pair)}" for pair in pairs]
    with plot_style(STYLE):
        return svg_text(forest(replace(board, rows=rows, comparisons=list(pairs), pooled=[]), names))


def _question(pair: Comparison) -> str:
    at = f" at {pair.columns['first_learning_rate']:g}" if pair.question == "matched" else ""
    return pair.question + at


def _distinct(boards: Boards, question: str) -> list[Comparison]:
    """The comparisons with a verdict; what two boards have in common counts once."""
    found: dict[tuple[str, ...], Comparison] = {}
    for board in boards.values():
        for pair in board.comparisons:
            if pair.question == question and pair.difference.verdict:
                key = pair.first.setting_key, pair.first.arm_key, pair.second.arm_key, _question(pair)
                found.setdefault(key, pair)
    return sorted(found.values(), key=lambda pair: _place(pair.first))


def _place(row: Row) -> tuple[str, int]:
    """Sorts tables: text tasks first, in the order of their boards, then the digits by batch size."""
    return ("digits", row.runs[0].spec.batch_size) if _is_digits(row) else ("", 0)


def _is_digits(row: Row) -> bool:
    return row.runs[0].spec.task == "digits"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table of Markdown. A heading that begins with a space is of numbers."""
    texts = [" | ".join(map(str, line)) for line in lines]
    rule = "|".join("---:" if title.startswith(" ") else "---" for title in head)
    return "\n".join(
        [
            f"| {' | '.join(title.strip() for title in head)} |",
            f"|{rule}|",
            *(f"| {text} |" for text in texts),
        ]
    )


def _interval(difference: PairedDifference) -> str:
    d = difference
    return f"{signed(d.mean, digits=1)} ({signed_range(d.ci_low, d.ci_high, digits=1)})"


def _where(row: Row) -> str:
    """The task, and what tells its boards apart: the batch size of digits, else the method and k."""
    spec = row.runs[0].spec
    return f"{spec.task}, " + (f"batch {spec.batch_size}" if _is_digits(row) else f"{spec.method} k={spec.k}")


def _designs(boards: Boards) -> str:
    def line(name: str, board: Leaderboard) -> tuple[object, ...]:
        runs = list({run.spec.run_id: run for row in board.rows for run in row.runs}.values())
        spec = runs[0].spec
        costs = [run.costs for run in runs if run.costs]
        seconds = sum(c.train_seconds + c.dev_seconds + c.test_seconds for c in costs)
        standings = standings_of(board.designs, runs)
        confirming = [(design.looks, now) for design, now in standings if design.confirm_seeds]
        confirmed = "; ".join(_looks(confirming)) or "none"
        steps = _and(sorted({run.spec.max_steps for run in runs}))
        tasks = _and(dict.fromkeys(str(row.columns["task"]) for row in board.rows))
        few = f"k = {spec.k}" if spec.k else "all training rows"
        model = spec.model.partition(":")[2] if spec.method != "scratch" else "a small network"
        how = "learned from scratch" if spec.method == "scratch" else f"by {spec.method}"
        what = f"{tasks}; {model} {how}, {few}, {steps} steps"
        return f"`{name}`", what, confirmed, len(runs), f"{seconds / 3600:.1f}"

    head = ("board", "what", "confirming seeds", " runs", " core hours")
    return _table(head, (line(name, board) for name, board in boards.items()))


def _looks(confirming: Sequence[tuple[Sequence[int], Standing]]) -> Iterator[str]:
    """The looks of a board's designs in words, and the smallest one up to which a design has come so far."""
    for looks in sorted({tuple(looks) for looks, _ in confirming}):
        of_these = [now for its_looks, now in confirming if tuple(its_looks) == looks]
        growing = [_seeds_so_far(now) for now in of_these if not now.has_ended]
        at_least = "at least " if len(growing) < len(of_these) else ""
        so_far = f"; so far {at_least}{min(growing)}" if growing else ""
        yield f"until decided, looks at {_and(looks)}{so_far}"


def _and(values: Iterable[object]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last


def _differences(boards: Boards, question: str) -> str:
    def line(pair: Comparison) -> tuple[object, ...]:
        c = pair.columns
        if pair.first.name != "SGD":
            raise Changed(f"{pair.sentence} The page compares with SGD only")
        rate = [f"{c['first_learning_rate']:g}"] if question == "matched" else []
        means = [f"{100 * _mean(row, c['seeds']):.1f}" for row in (pair.first, pair.second)]
        better = {"a better": "SGD better", "b better": "second better"}
        verdict = better.get(str(pair.difference.verdict), pair.verdict)
        what = _where(pair.first), pair.second.name, _interval(pair.difference)
        return *what, c["n_pairs"], verdict, *means, *rate

    head = ("task", "second", "second minus SGD, points", " seeds", "verdict", " SGD", " second")
    return _table((*head, " rate") if question == "matched" else head, map(line, _distinct(boards, question)))


def _mean(row: Row, seeds: str) -> float:
    """The mean test score over the seeds of a comparison; its row may have more."""
    tests = [run.test for seed, run in row.chosen.items() if str(seed) in seeds.split(";")]
    return fmean(test.metric for test in tests if test)


def _digits(boards: Boards, batch: int, optimizer: str, momentum: float, verdict: str) -> str:
    """The matched difference to SGD in words, if its verdict is the one that the sentence needs."""
    label = f"{optimizer} momentum={momentum:g}"
    return _said(boards["digits-momentum"], "matched", "digits", label, verdict, batch)


def _spread(boards: Boards, batch: int, label: str) -> str:
    """The standard deviation of the digits over confirming seeds at the matched rate, in points."""
    return (
        f"{100 * _confirmed_row(boards['digits-momentum'], 'digits', label, batch).columns['test_std']:.1f}"
    )


Curve = dict[int, dict[str, Any]]
"""Rows of matched_differences.csv by their rates, as steps of the grid from the rate that dev chose."""


def _curves(board: Leaderboard, label: str) -> dict[str, Curve]:
    """What an optimizer adds to SGD at each rate of the grid, by task, for tasks with confirming seeds."""
    chosen = {
        row.columns["task"]: min(row.grid).learning_rate  # such a row has one point
        for row in board.rows
        if row.role == "matched"
    }
    by_rate: dict[str, dict[float, dict[str, Any]]] = {task: {} for task in chosen}
    for line in matched_lines(tuned_pairs(board)):
        if line["task"] in chosen and (line["first"], line["second"]) == ("sgd", label):
            by_rate[line["task"]][line["learning_rate"]] = line
    return {
        task: {place - sorted(of).index(chosen[task]): of[rate] for place, rate in enumerate(sorted(of))}
        for task, of in by_rate.items()
    }


def _boards_with_curves(boards: Boards) -> Boards:
    """The boards of text tasks with confirming seeds at matched rates."""
    return {
        name: board
        for name, board in boards.items()
        if any(row.role == "matched" for row in board.rows) and not any(map(_is_digits, board.rows))
    }


def _common_steps(curves: Mapping[str, Curve]) -> list[int]:
    """The steps that each task has, in ascending order."""
    return sorted(set.intersection(*(set(curve) for curve in curves.values())))


def _steps_in_words(steps: int) -> str:
    if not steps:
        return "the chosen one"
    return f"{abs(steps)} step{'s' if abs(steps) > 1 else ''} {'above' if steps > 0 else 'below'}"


def _each_rate(boards: Boards) -> str:
    """SGDM and sgd_matched at rates below and above the chosen one, as means over the tasks of a board."""

    def lines(name: str, board: Leaderboard) -> Iterator[tuple[object, ...]]:
        of_sgdm, of_matched = _curves(board, "sgdm"), _curves(board, "sgd_matched")
        for steps in _common_steps(of_sgdm):
            sgd = fmean(curve[steps]["first_test_mean"] for curve in of_sgdm.values())
            added = [_mean_and_range(curves, steps) for curves in (of_sgdm, of_matched)]
            yield f"`{name}`", len(of_sgdm), _steps_in_words(steps), f"{100 * sgd:.1f}", *added

    head = ("board", " tasks", "rate", " SGD", " SGDM minus SGD", " sgd_matched minus SGD")
    found = _boards_with_curves(boards)
    return _table(head, (line for name, board in found.items() for line in lines(name, board)))


def _mean_and_range(curves: Mapping[str, Curve], steps: int) -> str:
    added = [curve[steps]["mean_difference"] for curve in curves.values()]
    return f"{signed(fmean(added), digits=1)} ({signed_range(min(added), max(added), digits=1)})"


def _farthest_below(boards: Boards, name: str, at_most: float) -> str:
    """The largest difference of SGDM and SGD on any task at any rate below the chosen one, in points."""
    below = [
        abs(100 * line["mean_difference"])
        for curve in _curves(boards[name], "sgdm").values()
        for steps, line in curve.items()
        if steps < 0
    ]
    if not max(below) <= at_most:
        raise Changed(f"{name}: SGDM and SGD differ by {max(below)} points below the chosen rate")
    return f"{max(below):.1f}"


def _added_at(boards: Boards, name: str, task: str, rate: float, label: str = "sgdm") -> str:
    """What an optimizer adds to SGD at a rate of the grid, over the tuning seeds, in points."""
    return signed(_line_at(boards[name], task, rate, label)["mean_difference"], digits=1)


def _score_at(boards: Boards, name: str, task: str, rate: float, label: str = "sgd") -> str:
    """The mean test score of an optimizer at a rate of the grid, over the tuning seeds, in per cent."""
    second, column = ("sgdm", "first_test_mean") if label == "sgd" else (label, "second_test_mean")
    return f"{100 * _line_at(boards[name], task, rate, second)[column]:.1f} %"


def _line_at(board: Leaderboard, task: str, rate: float, label: str) -> dict[str, Any]:
    [found] = [line for line in _curves(board, label)[task].values() if line["learning_rate"] == rate]
    return found


def _rates_plot(boards: Boards) -> str:
    """What SGDM and sgd_matched add to SGD at each rate; a thin line is a task, a thick one their mean."""
    with plot_style(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, label in zip(panels, ("sgdm", "sgd_matched"), strict=True):
            axes.axhspan(-1, 1, color=BAND, linewidth=0)
            axes.axhline(0, color=FAINT, linewidth=0.8)
            for colour, (name, board) in zip(COLOURS, _boards_with_curves(boards).items(), strict=False):
                _draw_curves(axes, name, _curves(board, label), colour)
            axes.set_yscale("symlog", linthresh=2)  # linear up to 2 points
            ticks = (-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 40)
            axes.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
            axes.set_xlabel("steps of the grid from the rate that dev chose")
            axes.set_title(f"{label} minus sgd", fontsize=10)
        panels[0].set_ylabel("difference in points")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
        )
        return svg_text(figure)


def _draw_curves(axes: Axes, name: str, curves: Mapping[str, Curve], colour: str) -> None:
    points = [
        {steps: 100 * line["mean_difference"] for steps, line in curve.items()} for curve in curves.values()
    ]
    for of_task in points:
        axes.plot(list(of_task), list(of_task.values()), color=colour, linewidth=0.8, alpha=0.5)
    steps = _common_steps(curves)
    means = [fmean(of_task[step] for of_task in points) for step in steps]
    axes.plot(steps, means, marker="o", color=colour, linewidth=2.2, label=name)


def _said(
    board: Leaderboard, question: str, task: str, label: str, verdict: str, batch: int | None = None
) -> str:
    """What this optimizer adds to the first of its pair, if its verdict is what the sentence needs."""
    for pair in board.comparisons:
        spec = pair.first.runs[0].spec
        found = pair.question == question and spec.task == task and pair.second.label == label
        if found and batch in (None, spec.batch_size):
            if pair.difference.verdict != verdict:
                raise Changed(f"{pair.sentence} The page says: {verdict}")
            return f"{_interval(pair.difference)} points"
    raise Changed(f"no {question} comparison of {label} on {task}")


def _over_tasks(board: Leaderboard, question: str, label: str, verdict: str) -> str:
    """A difference to SGD over all tasks in words, if its verdict is the one that the sentence needs."""
    together = over_tasks(pair for pair in board.comparisons if pair.question == question)
    [found] = [
        each
        for each in together
        if (each.comparisons[0].first.name, each.comparisons[0].second.label) == ("SGD", label)
    ]
    if found.difference.verdict != verdict:
        raise Changed(f"{found.sentence} The page says: {verdict}")
    return f"{_interval(found.difference)} points over {found.difference.n_pairs} seeds"


def _score(board: Leaderboard, task: str, label: str, column: str = "test_mean") -> str:
    """A number of the row of confirming seeds at the matched rate, in per cent."""
    return f"{100 * _confirmed_row(board, task, label).columns[column]:.1f} %"


def _confirmed_row(board: Leaderboard, task: str, label: str, batch: int | None = None) -> Row:
    """The row of confirming seeds at the matched rate; a batch size tells the digits' rows apart."""
    [row] = [
        row
        for row in board.rows
        if (row.role, row.columns["task"], row.label) == ("matched", task, label)
        and batch in (None, row.runs[0].spec.batch_size)
    ]
    return row


def _six_tasks(boards: Boards) -> str:
    pairs = [pair for pair in boards["six-tasks-minilm-head"].comparisons if pair.question == "tuned"]
    means = over_tasks(pairs)
    if {each.difference.verdict for each in (*pairs, *means)} != {"inconclusive"}:
        raise Changed("one of the six tasks, or their mean, is decided")
    n_tasks = len({pair.columns["task"] for pair in pairs})
    found = _and(
        f"{mean.comparisons[0].second.name} minus SGD is {_interval(mean.difference)} points"
        for mean in means
    )
    n_seeds = means[0].difference.n_pairs
    return (
        f"On the {n_tasks} text tasks no comparison is decided by {n_seeds} seeds that are tuned one by\n"
        f"one. Over these tasks {found}, inconclusive too."
    )


def _scores(board: Leaderboard) -> str:
    """The mean test score of each tuned optimizer on each task, and what it adds to SGD over the tasks."""
    rows = tuned_rows(board)
    tasks = sorted({str(row.columns["task"]) for row in rows})
    scores = {(row.name, str(row.columns["task"])): row.columns["test_mean"] for row in rows}
    together = over_tasks(_with_sgd(board, "tuned"))
    to_sgd = {line.comparisons[0].second.name: line.difference for line in together}

    def line(name: str) -> tuple[object, ...]:
        better = {"a better": "SGD better", "b better": "it is better"}
        found = to_sgd.get(name)
        told = (_interval(found), better.get(str(found.verdict), found.verdict)) if found else ("", "")
        return name, *(f"{100 * scores[name, task]:.1f}" for task in tasks), *told

    head = ("optimizer", *(f" {task}" for task in tasks), " minus SGD over the tasks", "verdict")
    return _table(head, map(line, dict.fromkeys(row.name for row in rows)))


def _range(board: Leaderboard, task: str, *names: str) -> str:
    """The lowest and the highest mean test score of some tuned optimizers on a task, in per cent."""
    scores = [
        100 * row.columns["test_mean"]
        for row in tuned_rows(board)
        if row.columns["task"] == task and row.columns["optimizer"] in names
    ]
    return f"{min(scores):.1f} to {max(scores):.1f} %"


def _n_decided(board: Leaderboard, question: str) -> str:
    """How many comparisons of single tasks with SGD are decided, and of how many."""
    pairs = _with_sgd(board, question)
    n = sum(pair.difference.verdict != "inconclusive" for pair in pairs)
    return f"{n or 'none'} of the {len(pairs)}"


def _with_sgd(board: Leaderboard, question: str) -> list[Comparison]:
    return [pair for pair in board.comparisons if pair.question == question and pair.first.name == "SGD"]


def _momentum(board: Leaderboard) -> str:
    """What momentum adds in each pair of twins, on confirming seeds."""

    def line(answer: Answer) -> tuple[object, ...]:
        pair = answer.comparison
        difference = replace(pair.difference, mean=answer.mean, ci_low=answer.low, ci_high=answer.high)
        twins = [
            f"{row.name}, {min(row.grid).learning_rate:g}"  # such a row has one point
            for row in (answer.without, answer.with_momentum)
        ]
        return pair.columns["task"], *twins, _interval(difference), pair.columns["n_pairs"], answer.words

    answers = [each for each in momentum_answers(board.comparisons) if each.comparison.question != "tuned"]
    head = ("task", "without, rate", "with, rate", "momentum adds, points", " seeds", "does it pay?")
    return _table(head, map(line, answers))


def _sgd_and_sgdm(boards: Boards) -> Iterator[Row]:
    """The tuned rows of both; a pilot of one optimizer says nothing about them."""
    seen = set()
    for board in boards.values():
        for row in tuned_rows(board) if board.comparisons else ():
            spec = row.runs[0].spec
            key = row.setting_key, row.arm_key
            if key not in seen and spec.optimizer in ("sgd", "sgdm"):
                seen.add(key)
                yield row


def _sensitivity(boards: Boards) -> str:
    by_row = {
        line["row_id"]: line for board in boards.values() for line in sensitivity_lines(tuned_rows(board))
    }

    def line(row: Row) -> tuple[object, ...]:
        s = by_row[row.row_id]
        costs = [step_cost(s[name]).text for name in ("cost_step_down", "cost_step_up")]
        return _where(row), row.name, f"{s['best_learning_rate']:g}", f"{s['decades']:.1f}", *costs

    head = (
        "task",
        "optimizer",
        " best rate",
        " decades within 2 points",
        " one step too low",
        " one step too high",
    )
    rows = sorted((row for row in _sgd_and_sgdm(boards) if row.row_id in by_row), key=_place)
    return _table(head, map(line, rows))


def _budget(boards: Boards) -> str:
    found: dict[tuple[object, ...], dict[int, float]] = {}
    names = {row.row_id: row for row in sorted(_sgd_and_sgdm(boards), key=_place)}
    for each in (line for board in boards.values() for line in budget_lines(tuned_pairs(board))):
        if each["first_row_id"] in names and each["second_row_id"] in names:
            row = names[each["second_row_id"]]
            found.setdefault((_where(row), row.name), {})[each["n_rates"]] = each["mean_difference"]

    def line(key: tuple[object, ...]) -> tuple[object, ...]:
        of = found[key]
        return *key, *(signed(of[n], digits=1) for n in (1, 2, 3, max(of)))

    head = ("task", "optimizer minus SGD", " 1 rate tried", " 2", " 3", " the whole grid")
    found = {key: found[key] for row in names.values() if (key := (_where(row), row.name)) in found}
    return _table(head, map(line, found))


if __name__ == "__main__":
    boards = published()
    (DOCS / PAGE).write_text(page(boards), encoding="utf-8")
    for name, svg in plots(boards).items():
        (DOCS / name).write_text(svg, encoding="utf-8")
