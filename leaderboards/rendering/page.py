"""The leaderboard as one static page that opens from the disk, without a network or a server."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from momentum_bench.harness.optimizers.accumulated import NOT_FAR_ENOUGH
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, PAPER, cell
from momentum_bench.harness.verdicts.paired import in_points
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.environments import FACTS
from momentum_bench.leaderboards.over_tasks import over_tasks
from momentum_bench.leaderboards.printable import html_text
from momentum_bench.leaderboards.reference_numbers import matching
from momentum_bench.leaderboards.rendering.cells import (
    Cell,
    Head,
    HeadedLines,
    signed,
    signed_range,
    task_cell,
)
from momentum_bench.leaderboards.rendering.grid_tables import (
    budget_table,
    matched_table,
    regret_table,
    sensitivity_table,
)
from momentum_bench.leaderboards.rendering.plots import BAND, budget_name, curves_name, matched_name
from momentum_bench.leaderboards.rendering.terminal import percent, percent_range
from momentum_bench.leaderboards.rendering.wording import Context, context
from momentum_bench.leaderboards.rows import Row, by_setting, point_text
from momentum_bench.leaderboards.tables import tables_of
from momentum_bench.leaderboards.twins import Answer, momentum_answers


def page(board: Leaderboard, plots: dict[str, str], file_stems: dict[str, str]) -> str:
    """The whole page as HTML. Every text that comes from a record is escaped.

    Args:
        plots: SVG text by name, the result of `board_plots`.
        file_stems: for each plot, the name of its file in `plots/` without `.svg`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=html_text,
    )
    words = context(board.rows)
    svgs = {name: Markup(_inline(svg, f"p{number}")) for number, (name, svg) in enumerate(plots.items())}
    counts = Counter(_verdict(comparison) for comparison in board.comparisons)
    comparison_heads, comparisons = _comparison_table(board.comparisons, words)
    row_heads, rows = _row_table(board.rows, words)
    cost_heads, costs = _cost_table(board.rows, words)
    twin_heads, twins = _twin_table(momentum_answers(board.comparisons), words)
    tables = tables_of(board)
    by_id = {row.row_id: row for row in board.rows}

    def plots_of(name_of: Callable[[Row], str]) -> list[dict[str, Any]]:
        """The plots of one kind, one for each setting that has it."""
        named = [(name_of(group[0]), group[0]) for group in by_setting(board.rows)]
        return [
            {
                "id": name,
                "title": ", ".join([row.columns["task"], *words.of(row)]),
                "svg": svgs[name],
                "file": file_stems[name],
            }
            for name, row in named
            if name in svgs
        ]

    return environment.get_template("page.html.j2").render(
        table=environment.get_template("table.html.j2").module.table,  # type: ignore[attr-defined]
        n_runs=sum(len(row.runs) for row in board.rows),
        n_tasks=len({row.columns["task"] for row in board.rows}),
        common=words.shared,
        margin=in_points(board.margin),
        counts=[{"kind": kind, "text": text, "n": n} for (kind, text), n in sorted(counts.items())],
        forest=svgs.get("forest"),
        over_tasks=[line.sentence for line in over_tasks(board.comparisons)],
        pooled=[line.sentence for line in board.pooled],
        twin_heads=twin_heads,
        twins=twins,
        comparison_heads=comparison_heads,
        comparisons=comparisons,
        notes=board.notes,
        row_heads=row_heads,
        rows=rows,
        cost_heads=cost_heads,
        costs=costs,
        curves=plots_of(curves_name),
        sensitivity=sensitivity_table(tables["sensitivity"], by_id, words),
        matched_plots=plots_of(matched_name),
        matched=matched_table(tables["matched_differences"], by_id, words),
        budget_plots=plots_of(budget_name),
        budget=budget_table(tables["tuning_budget"], by_id, words),
        regret=regret_table(tables["regret"]),
        provenance=[_provenance(row, words) for row in board.rows],
        references=[
            (source, *_reference_table(list(lines)))
            for source, lines in groupby(matching(board.rows), key=lambda line: line["source"])
        ],
    )


def _verdict(comparison: Comparison) -> tuple[str, str]:
    """The CSS class of a verdict, and its words."""
    classes = {
        "a better": "first",
        "b better": "second",
        "equivalent": "equivalent",
        "inconclusive": "open",
        "not learned": "nothing",
        None: "none",
    }
    return classes[comparison.difference.verdict], comparison.verdict


def _comparison_table(comparisons: Sequence[Comparison], words: Context) -> HeadedLines:
    heads = [
        Head("Task"),
        Head("Second minus first"),
        Head("Verdict"),
        Head("Difference, points", number=True),
        Head("95 % interval", number=True),
        Head("90 % interval", number=True),
        Head("Farthest seed", number=True),
        Head("Pairs", number=True),
        Head("p difference (Holm)", number=True),
        Head("p equivalence (Holm)", number=True),
        Head("p sign flip", number=True),
    ]
    lines = []
    for comparison in comparisons:
        c, d = comparison.columns, comparison.difference
        kind, text = _verdict(comparison)
        lines.append(
            [
                task_cell(comparison.first, words),
                _named(" - ", comparison, comparison.second, comparison.first),
                Cell(text, kind=kind, sort=text, sub=comparison.advice_in_words or d.no_verdict),
                Cell(signed(d.mean), cell(d.mean)),
                Cell(signed_range(d.ci_low, d.ci_high), cell(d.ci_low)),
                Cell(signed_range(d.ci90_low, d.ci90_high), cell(d.ci90_low)),
                Cell(signed(c["worst_difference"]), cell(c["worst_difference"])),
                Cell(str(d.n_pairs), sub=_at_look(comparison)),
                Cell(_p_with_holm(c, "p_difference"), cell(d.p_difference)),
                Cell(_p_with_holm(c, "p_equivalence"), cell(d.p_equivalence)),
                Cell(_p(c["p_sign_flip"]), cell(c["p_sign_flip"])),
            ]
        )
    return heads, lines


def _twin_table(answers: Sequence[Answer], words: Context) -> HeadedLines:
    heads = [
        Head("Task"),
        Head("Without and with momentum"),
        Head("Does it pay?"),
        Head("It adds, points", number=True),
        Head("95 % interval", number=True),
        Head("Pairs", number=True),
    ]
    lines = [
        [
            task_cell(answer.without, words),
            _named(", ", answer.comparison, answer.without, answer.with_momentum),
            Cell(answer.words, kind=_verdict(answer.comparison)[0], sort=answer.words),
            Cell(signed(answer.mean), cell(answer.mean)),
            Cell(signed_range(answer.low, answer.high), cell(answer.low)),
            Cell(str(answer.comparison.difference.n_pairs)),
        ]
        for answer in answers
    ]
    return heads, lines


def _named(between: str, comparison: Comparison, *rows: Row) -> Cell:
    """The two rows of a comparison in this order, and below them how they are compared."""
    return Cell(between.join(row.label for row in rows), sub=_question(comparison, rows))


def _question(comparison: Comparison, rows: Sequence[Row]) -> str:
    """How the two rows of a comparison are compared, in a few words."""
    places = ["first" if row is comparison.first else "second" for row in rows]
    rates = [comparison.columns[f"{place}_learning_rate"] for place in places]
    if comparison.question == "matched":
        return f"matched, at rate {rates[0]:g}"
    if comparison.question == "own":
        return f"own rates, {rates[0]:g} and {rates[1]:g}"
    return "tuned on each seed"


def _at_look(comparison: Comparison) -> str:
    looks = comparison.looks
    if comparison.look is None or len(looks) < 2:
        return ""
    return f"look {looks.index(comparison.look.n_seeds) + 1} of {len(looks)}"


def _row_table(rows: Sequence[Row], words: Context) -> HeadedLines:
    heads = [
        Head("Task"),
        Head("Optimizer"),
        Head("Seeds", number=True),
        Head("Test, %", number=True),
        Head("95 % interval", number=True),
        Head("SD", number=True),
        Head("Worst seed", number=True),
        Head("Commonest answer", number=True),
        Head("Over ties", number=True),
        Head("Dev, %", number=True),
        Head("Chosen rates"),
        Head("Remarks"),
    ]
    lines = []
    for row in rows:
        c = row.columns
        lines.append(
            [
                task_cell(row, words),
                Cell(row.label, sort=row.label, link=f"row-{row.row_id}"),
                Cell(str(c["n_seeds"]), sub="tuned" if row.role == "tuned" else f"confirming, {row.role}"),
                Cell(percent(c["test_mean"]), cell(c["test_mean"])),
                Cell(percent_range(c["test_ci_low"], c["test_ci_high"]), cell(c["test_ci_low"])),
                Cell(percent(c["test_std"]), cell(c["test_std"])),
                Cell(percent(c["test_worst"]), cell(c["test_worst"])),
                Cell(percent(c["majority"]), cell(c["majority"])),
                Cell(
                    percent_range(c["test_tied_low"], c["test_tied_high"]) if c["n_tied"] else "no ties",
                    cell(c["test_tied_high"] - c["test_tied_low"]),
                ),
                Cell(percent(c["dev_mean"]), cell(c["dev_mean"])),
                Cell(_rates(row)),
                Cell(_remarks(row)),
            ]
        )
    return heads, lines


def _rates(row: Row) -> str:
    """The chosen rates of the seeds; one where all are equal."""
    rates = [point_text(run.spec.point) for run in row.chosen.values()]
    return rates[0] if len(set(rates)) == 1 and len(rates) > 1 else ", ".join(rates)


def _remarks(row: Row) -> str:
    c = row.columns
    counts = (
        (c["n_tied"], "tied"),
        (c["on_grid_edge"], f"at the grid's edge ({c['ends']})" if c["ends"] else "at the grid's edge"),
        (c["n_diverged"], "diverged"),
        (c["n_failed"], "failed"),
        (c["n_missing"], "missing"),
    )
    words = [f"{n} {what}" for n, what in counts if n]
    if (ratio := c["accumulated_rate"]) is not None and ratio < NOT_FAR_ENOUGH:
        words.append(f"moves {ratio:.2f} times as far as SGD")
    if leaked := c["n_leaked"]:
        words.append(f"{leaked} test rows are train or dev rows too")
    if unknown := c["unknown_tokens"]:
        words.append(f"{percent(unknown)} % of tokens unknown")
    if c["short_classes"]:
        words.append(f"short classes: {c['short_classes']}")
    return ", ".join(words)


def _cost_table(rows: Sequence[Row], words: Context) -> HeadedLines:
    heads = [
        Head("Task"),
        Head("Optimizer"),
        Head("Runs", number=True),
        Head("Gradient evaluations", number=True),
        Head("Search time", number=True),
        Head("Peak memory", number=True),
        Head("Optimizer state", number=True),
        Head("Clipped steps", number=True),
    ]
    lines = []
    for row in rows:
        c = row.columns
        clipped = c["clipped_fraction"]
        lines.append(
            [
                task_cell(row, words),
                Cell(row.label),
                Cell(str(c["n_runs"])),
                Cell(f"{c['gradient_evaluations']:,}", cell(c["gradient_evaluations"])),
                Cell(_duration(c["search_seconds"]), cell(c["search_seconds"])),
                Cell(_megabytes(c["peak_memory_bytes"]), cell(c["peak_memory_bytes"])),
                Cell(_megabytes(c["optimizer_state_bytes"]), cell(c["optimizer_state_bytes"])),
                Cell("-" if math.isnan(clipped) else f"{100 * clipped:.0f} %", cell(clipped)),
            ]
        )
    return heads, lines


def _reference_table(results: Sequence[Mapping[str, str]]) -> HeadedLines:
    heads = [
        Head("Task"),
        Head("Optimizer"),
        Head("Method"),
        Head("k", number=True),
        Head("Test, %", number=True),
        Head("SD as printed", number=True),
        Head("SD, n - 1", number=True),
        Head("Seeds", number=True),
        Head("Test rows"),
    ]
    lines = [
        [
            Cell(r["task"], sub=f"{r['metric']}, {r['table']}"),
            Cell(r["optimizer"]),
            Cell(r["method"], sub=r["model"]),
            Cell(r["k"]),
            *(
                Cell(percent(float(r[name] or "nan")), r[name])
                for name in ("test_mean", "test_std_reported", "test_std_ddof1")
            ),
            Cell(r["n_seeds"]),
            Cell(r["test_set"]),
        ]
        for r in results
    ]
    return heads, lines


def _provenance(row: Row, words: Context) -> dict[str, Any]:
    chosen = set(row.chosen_ids)
    lines = ["  run id            seed   rate      status    dev %   test %"]
    for run in row.runs:
        dev = percent(run.best.dev_metric) if run.best else "-"
        test = percent(run.test.metric) if run.test else "-"
        run_id = run.spec.run_id
        star = "*" if run_id in chosen else " "
        lines.append(
            f"{star} {run_id}  {run.spec.seed:<5}  {run.spec.learning_rate:<8g}  {run.status:<8}"
            f"  {dev:>5}   {test:>6}  {run.spec.point.settings_text}".rstrip()
        )
    facts = {**row.setting, "row id": row.row_id, "hyperparameters": row.columns["hyperparameters"]}
    facts |= {name: row.columns[name] for name in FACTS}
    return {
        "id": row.row_id,
        "title": ", ".join([row.columns["task"], row.label, *words.of(row)]),
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in facts.items()],
        "runs": "\n".join(lines),
    }


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none"
    return "none" if value in (None, "") else str(value)


PAGE_COLOURS = {
    PAPER: "paper",
    INK: "ink",
    FAINT: "faint",
    BAND: "band",
    **{colour: f"c{place}" for place, colour in enumerate(COLOURS)},
}


def _inline(svg: str, prefix: str) -> str:
    """The text of an SVG file as an element of the page, with the page's colours and font.

    Groups lose their ids, and ids that something refers to get the plot's prefix, because an id must be
    unique in a page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(id="|url\(#|href="#)([mp][0-9a-f]{10})', rf"\g<1>{prefix}\g<2>", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"(\d\.\d\d)\d{2,}(?=[ \"])", r"\1", svg)
    for colour, name in PAGE_COLOURS.items():
        svg = svg.replace(f": {colour}", f": var(--{name})")
    return re.sub(r"\s*\n\s*", " ", svg).replace("<svg ", '<svg role="img" ', 1)


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _p_with_holm(columns: dict[str, Any], name: str) -> str:
    holm = columns[f"{name}_holm"]
    return _p(columns[name]) + ("" if math.isnan(holm) else f" ({_p(holm)})")


def _megabytes(n: int | None) -> str:
    return "-" if n is None else f"{n / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
