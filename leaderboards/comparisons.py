"""Paired differences of two optimizers on one task and over several tasks, and the best row of a task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from momentum_bench.harness.metrics.functions import SHARES_OF_ROWS
from momentum_bench.harness.records.budget import evaluations_by_run
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.reporting import joined
from momentum_bench.harness.sweeps.confirming import Question, seed_difference
from momentum_bench.harness.verdicts.looks import nominal_level, overall_p
from momentum_bench.harness.verdicts.paired import (
    FEWEST_PAIRS,
    LEVEL,
    decided,
    holm,
    no_difference,
    paired_difference,
    sign_flip_p,
    spread_floor,
    summary,
)
from momentum_bench.harness.verdicts.sequential import AtLook, SeedDifference, over_looks
from momentum_bench.leaderboards.columns import PAIR_COLUMNS, metric_on_test, pair_columns
from momentum_bench.leaderboards.comparison import IN_WORDS, Comparison, above_constant
from momentum_bench.leaderboards.environments import mixed
from momentum_bench.leaderboards.posterior import posterior
from momentum_bench.leaderboards.rows import Cell, Row, cells_in_words

FEWEST_TASKS = 3
"""A pooled line needs at least three tasks."""

MIX = "`momentum-bench leaderboard build DIR --mix-environments` allows it"
"""What a sentence on mixed environments ends with."""

NO_SCORE = "no seed has a score of both"

FEWEST_SEEDS = 2
"""One seed says nothing about chance, so it cannot show which row is the best."""


@dataclass(frozen=True)
class Pooled:
    """A pair of optimizers over the tasks of one family: the plain mean of the tasks' mean differences.

    Its t interval is over tasks. It is about tasks like these and not about more seeds. Each task has the
    same weight, however noisy it is. There is no verdict.

    Attributes:
        columns: the row of pooled.csv.
    """

    comparisons: list[Comparison]
    columns: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The mean difference and its interval in words."""
        c, one = self.columns, self.comparisons[0]
        what = IN_WORDS[one.question]
        return (
            f"mean over {c['n_tasks']} tasks{what}: {one.second.name} minus {one.first.name}: "
            f"{100 * c['mean_difference']:+.1f} points, 95 % interval over tasks "
            f"{100 * c['ci_low']:+.1f} to {100 * c['ci_high']:+.1f}."
        )


def same_search(first: Row, second: Row, seed: int) -> bool:
    """Whether two rows of one setting had equal search budgets on a seed.

    Equal budgets have equally many gradient evaluations. Where both rows have effective rates, the rates must
    be equal too. They are compared on the axis of effective rates, and else as torch ran them, because a
    sweep may ask for equal rates on either axis. An optimizer with a rate of its own shares no axis with
    others. There both rows must have a result in each cell of their grids. So it is where further axes are
    tuned, because one of the two may lack an axis.
    """
    if first.gradient_evaluations[seed] != second.gradient_evaluations[seed]:
        return False
    rates, others = first.budget[seed], second.budget[seed]
    if rates == others:
        return True
    if _share_an_axis(first, second):
        ran = _torch_rates(first, seed)
        return ran is not None and ran == _torch_rates(second, seed)
    return rates == first.grid and others == second.grid


def _share_an_axis(first: Row, second: Row) -> bool:
    """Whether the grids of both rows are effective rates alone."""
    return first.has_effective_rate and second.has_effective_rate and not (first.axes or second.axes)


def _torch_rates(row: Row, seed: int) -> set[float] | None:
    """The rates of a seed's budget as torch ran them, to 12 digits; None if one is not recorded."""
    runs = [run for run in row.runs if run.spec.seed == seed and run.spec.point in row.budget[seed]]
    recorded = [run.read_back.torch_learning_rate for run in runs if run.read_back]
    return {float(f"{rate:.12g}") for rate in recorded} if len(recorded) == len(runs) else None


def lacking(first: Row, second: Row, seeds: Iterable[int]) -> str:
    """The cells that make the searches of two rows unequal on some seeds, with their states, in words."""
    seeds = list(seeds)
    shared = _share_an_axis(first, second)
    parts = []
    for row, other in ((first, second), (second, first)):
        wanted = other.budget if shared else dict.fromkeys(seeds, row.grid)
        cells = [(s, point) for s in seeds for point in sorted(wanted[s] - row.budget[s])]
        failed = set(row.left_out["failed"])
        states: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            states["failed" if cell in failed else "missing"].append(cell)
        parts += [f"{row.label} {state} at {cells_in_words(cells)}" for state, cells in states.items()]
    return "; ".join(parts)


def budgets_apart(setting: Sequence[Row]) -> tuple[str, bool]:
    """A sentence on the rows of one setting that share no seed with equal searches; empty without such rows.

    Returns:
        The sentence, and whether cells of one row are missing in another. Where rows share no axis, their
        grids may have other sizes and no cell needs to be missing.
    """
    apart: set[str] = set()
    gaps = False
    for first, second in combinations([row for row in setting if row.chosen], 2):
        common = first.chosen.keys() & second.chosen.keys()
        if common and not any(same_search(first, second, seed) for seed in common):
            apart |= {first.row_id, second.row_id}
            gaps = gaps or bool(lacking(first, second, common))
    groups: dict[str, list[str]] = defaultdict(list)
    unlike = [row for row in setting if row.row_id in apart]
    with_cost = any(_evaluations_per_step(row) != 1 for row in unlike)
    for row in unlike:
        groups[_budget(row, with_cost)].append(row.label)
    parts = [f"{budget} for {', '.join(labels)}" for budget, labels in sorted(groups.items())]
    what = f"{setting[0].columns['task']}: optimizers with different search budgets are not compared"
    advice = _advice(unlike)
    return f"{what} ({'; '.join(parts)}).{advice}" if parts else "", gaps


def _advice(apart: Sequence[Row]) -> str:
    """What to type where rows have different budgets; empty where some runs are just missing."""
    costs = {row.label: _evaluations_per_step(row) for row in apart}
    dear = [label for label, cost in costs.items() if cost != 1]
    if varying := [label for label in dear if costs[label] is None]:
        return (
            f" The steps of {', '.join(varying)} take gradient evaluations whose number varies, so no other "
            f"search costs the same."
        )
    if dear:
        each = ", ".join(f"{label} {costs[label]}" for label in dear)
        return (
            f" Each optimizer needs the same number of gradient evaluations (in one step: {each}, others 1). "
            f"Run the one with fewer alone, with more --learning-rates and the same --output-dir."
        )
    if any(row.axes for row in apart):
        return (
            " Each optimizer needs the same number of points. Run the one with fewer points alone, with more "
            "--learning-rates and the same --output-dir; or draw equally many for each, with --trials N."
        )
    return ""


def _evaluations_per_step(row: Row) -> int | None:
    """The gradient evaluations of one step of a row; None: their number varies."""
    counts = evaluations_by_run(row.runs)
    ratios = {
        counts[run.spec.run_id] / run.spec.max_steps
        for run in row.runs
        if run.status == "done" and run.spec.max_steps
    }
    if len(ratios) == 1 and (ratio := ratios.pop()) == int(ratio):
        return int(ratio)
    return None if ratios else 1


def _budget(row: Row, with_cost: bool) -> str:
    """The points of a row that ended in a result on each seed, and what they cost, in words."""
    if with_cost:
        spent = " or ".join(f"{n:,}" for n in sorted(set(row.gradient_evaluations.values())))
        return f"{_points(row)}, {spent} gradient evaluations a seed"
    return _points(row)


def _points(row: Row) -> str:
    if len(budgets := set(row.budget.values())) == 1:
        points = sorted(budgets.pop())
        rates = " ".join(f"{rate:g}" for rate in sorted({point.learning_rate for point in points}))
        if row.axes:
            return f"{len(points)} points (learning rates {rates}; {row.columns['axes']})"
        return f"{len(points)} rates ({rates})"
    return cells_in_words((seed, point) for seed, points in row.budget.items() for point in points)


def compare(
    first: Row, second: Row, margin: float, mix_environments: bool = False, other_margin: float | None = None
) -> tuple[Comparison | None, str]:
    """The comparison of two tuned rows of one setting, without its verdict, and a note on what was left out.

    A seed counts only if both arms searched the same learning rates on it (`same_search`), because a larger
    search has a better chance to find a good rate. Two rows whose runs have different environments are not
    compared, because the difference may come from the environment.

    Args:
        margin: half width of the band of equivalence, a fraction.
        mix_environments: compare them all the same.
        other_margin: see `Comparison`.
    """
    pair = f"{first.columns['task']}: {first.label} and {second.label}"
    common = _with_an_end(first, second, sorted({*first.chosen, *second.chosen}))
    if not (common and first.chosen and second.chosen):
        if first.mixed or second.mixed:  # a row without a score because of its environments has its own note
            return None, ""
        if first.grid != second.grid and first.chosen and second.chosen:
            return None, ""  # a note says that there are several grids
        without = [row.label for row in (first, second) if not row.chosen]
        why = f"{' and '.join(without)} finished no run" if without else "they share no seed"
        return None, f"{pair} are not compared: {why}."
    if refused := _refused(first, second, margin, mix_environments):
        return refused, f"{pair} are not compared: {refused.difference.no_verdict}; {MIX}."
    seeds = [seed for seed in common if same_search(first, second, seed)]
    unequal = [seed for seed in common if seed not in seeds]
    cells = lacking(first, second, unequal)
    if not seeds:  # `budgets_apart` says it once for all pairs
        reason = "their search budgets differ on all seeds"
        return _without_pairs(first, second, margin, reason, cells), ""
    pairs = {seed: said for seed in seeds if (said := _pair(first, second, seed)) is not None}
    if not pairs:
        return _without_pairs(first, second, margin, NO_SCORE, cells), ""
    comparison = _comparison(first, second, pairs, margin, cells, other_margin=other_margin)
    if not unequal:
        return comparison, ""
    return comparison, (
        f"{pair} are compared on {len(seeds)} of {len(common)} seeds: their search budgets differ on the "
        f"others ({cells or 'grids of other sizes'})."
    )


def confirmed(
    first: Row,
    second: Row,
    question: Question,
    look: AtLook,
    mix_environments: bool = False,
    margin: float | None = None,
) -> Comparison:
    """The comparison of two rows of confirming seeds, as it stands at its last look.

    Args:
        question: of the rows' design.
        look: where the replay of the design has left it.
        mix_environments: compare runs of different environments all the same.
        margin: another margin than that of the design; the tests of the looks are then those of the design,
            and this margin is only tested at the last look. None: the design's own.
    """
    assert first.design is not None
    planned = first.design.margin
    used = planned if margin is None else margin
    if refused := _refused(first, second, used, mix_environments):
        return refused
    seeds = first.design.confirm_seeds[: look.n_seeds]
    there = _with_an_end(first, second, seeds)
    pairs = {seed: pair for seed in there if (pair := _seed(first, second, seed)) is not None}
    if not pairs:
        return _without_pairs(first, second, used, NO_SCORE, "")
    missing = [seed for seed in seeds if seed not in pairs]
    left_out = f"no pair on {_counted_seeds(missing)}" if missing else ""
    return _comparison(first, second, pairs, used, left_out, look, None if used == planned else planned)


def _counted_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def _refused(first: Row, second: Row, margin: float, mix_environments: bool) -> Comparison | None:
    """What stands for a comparison of runs of different environments; None: it may be made."""
    if mix_environments or not (facts := mixed(first.facts, second.facts)):
        return None
    return _without_pairs(first, second, margin, f"their runs mix {facts}", "")


def _with_an_end(first: Row, second: Row, seeds: Sequence[int]) -> list[int]:
    """The seeds on which each of two rows has a score or diverged, and at least one has a score."""
    return [
        seed
        for seed in seeds
        if all(seed in row.chosen or seed in row.diverged for row in (first, second))
        and (seed in first.chosen or seed in second.chosen)
    ]


def _ends(first: Row, second: Row, seed: int) -> tuple[RunRecord, RunRecord]:
    """The chosen run of each row; where all runs of the seed diverged, one of these."""
    one, other = (row.chosen.get(seed) or row.diverged[seed] for row in (first, second))
    return one, other


def _seed(first: Row, second: Row, seed: int) -> SeedDifference | None:
    return seed_difference(*_ends(first, second, seed))


def _pair(first: Row, second: Row, seed: int) -> SeedDifference | None:
    """What a seed says about two tuned rows. If the test rows differ, disagreement is not known."""
    a, b = _ends(first, second, seed)
    if found := seed_difference(a, b):
        return found
    both = a.test and b.test
    return SeedDifference(metric_on_test(b) - metric_on_test(a), 0.0, 1) if both else None


def _diverged(first: Row, second: Row, seeds: Iterable[int]) -> str:
    """Which row diverged on which of these seeds, in words; empty without such a seed."""
    seeds = list(seeds)
    of_rows = [(row, [seed for seed in seeds if seed not in row.chosen]) for row in (first, second)]
    parts = [f"{row.name} diverged on {_counted_seeds(there)}" for row, there in of_rows if there]
    return f"{' and '.join(parts)}, which counts as the best constant answer" if parts else ""


def _without_pairs(first: Row, second: Row, margin: float, reason: str, left_out: str) -> Comparison:
    nothing = no_difference(margin, reason)
    bare = Comparison(first, second, (), nothing, math.nan, math.nan, 0.0, None, None, {})
    return replace(bare, columns=_columns(bare, (), left_out))


def _comparison(
    first: Row,
    second: Row,
    pairs: dict[int, SeedDifference],
    margin: float,
    left_out: str,
    look: AtLook | None = None,
    other_margin: float | None = None,
) -> Comparison:
    plain = tuple(pair.difference for pair in pairs.values())
    bagged = all(seed in row.bagged for row in (first, second) for seed in pairs)
    differences = tuple(second.bagged[s] - first.bagged[s] for s in pairs) if bagged else plain
    floor = spread_floor([p.disagreement for p in pairs.values()], [p.n_test for p in pairs.values()])
    difference = paired_difference(differences, margin, floor)
    if look is not None and first.design is not None:
        difference = over_looks(difference, first.design.looks)
    diverged = _diverged(first, second, pairs)
    found = Comparison(
        *(first, second, differences, difference, math.nan, math.nan, floor, look, other_margin, {}),
        diverged=diverged,
    )
    columns = _columns(found, tuple(pairs), "; ".join(filter(None, (left_out, diverged))))
    if bagged:
        of_plain = summary(plain)
        columns |= {
            "choice": "bagged",
            "plain_mean_difference": of_plain.mean,
            "plain_std_difference": of_plain.std,
        }
    below, within, above = posterior(differences, margin, floor)
    columns |= {"p_first_better": below, "p_within_margin": within, "p_second_better": above}
    return replace(found, columns=columns)


def _columns(comparison: Comparison, seeds: Sequence[int], left_out: str) -> dict[str, Any]:
    """The row of comparison.csv, before the verdict."""
    first, second = comparison.first, comparison.second
    difference, look = comparison.difference, comparison.look
    shared = ("task", "model", "method", "k", "metric")
    has_floor = first.columns["metric"] in SHARES_OF_ROWS
    design = first.design
    return {
        **{name: first.columns[name] for name in shared},
        "question": comparison.question,
        **pair_columns(first.columns, second.columns),
        "first_learning_rate": _only_rate(first),
        "second_learning_rate": _only_rate(second),
        "seeds": joined(seeds),
        "n_pairs": difference.n_pairs,
        "choice": "plain" if comparison.question == "tuned" else "",
        "plain_mean_difference": math.nan,
        "plain_std_difference": math.nan,
        "mean_difference": difference.mean,
        "std_difference": difference.std,
        "spread_floor": comparison.floor if difference.n_pairs and has_floor else math.nan,
        "worst_difference": _worst(comparison.differences, difference.mean),
        "ci_low": difference.ci_low,
        "ci_high": difference.ci_high,
        "ci90_low": difference.ci90_low,
        "ci90_high": difference.ci90_high,
        "p_sign_flip": sign_flip_p(comparison.differences) if difference.n_pairs > 1 else math.nan,
        "p_difference": difference.p_difference,
        "p_difference_holm": math.nan,
        "p_equivalence": difference.p_equivalence,
        "p_equivalence_holm": math.nan,
        "level_difference": math.nan,
        "level_equivalence": math.nan,
        "p_first_better": math.nan,
        "p_within_margin": math.nan,
        "p_second_better": math.nan,
        "margin": difference.margin,
        "look": look.n_seeds if look else None,
        "looks": joined(design.looks) if look and design else "",
        "verdict": "",
        "no_verdict": difference.no_verdict,
        "n_seeds_if_equal": None,
        "n_seeds_as_observed": None,
        "mixed": mixed(first.facts, second.facts),
        "left_out": left_out,
        "protocol": first.columns["protocol"],
        "data_fingerprint": first.columns["data_fingerprint"],
        "model_revision": first.columns["model_revision"],
        "design": design.design_id if design else "",
        "first_row_id": first.row_id,
        "second_row_id": second.row_id,
    }


def _only_rate(row: Row) -> float:
    """The one learning rate of a row of confirming seeds; NaN for a tuned row, which has several."""
    return math.nan if row.role == "tuned" else min(row.grid).learning_rate


def _worst(differences: Sequence[float], mean: float) -> float:
    """The difference farthest from the mean, which may be a seed that collapsed."""
    return max(differences, key=lambda d: abs(d - mean), default=math.nan)


def with_verdicts(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their verdicts.

    Tuned comparisons of one family of settings are adjusted together (Holm), for "better" and for
    "equivalent" each. Those of confirming seeds are adjusted by the replay of their design.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, comparison in enumerate(comparisons):
        if comparison.look is not None or _is_tested(comparison):
            first = comparison.first
            of_design = (first.design.design_id, comparison.question) if first.design else (first.family, "")
            families[of_design].append(place)
    found = list(comparisons)
    for places in families.values():
        part = [comparisons[place] for place in places]
        differences, equivalences = _adjusted(part)
        levels = _levels(differences, equivalences, part[0].looks)
        for place, p_difference, p_equivalence in zip(places, differences, equivalences, strict=True):
            if _is_tested(comparisons[place]):
                found[place] = _with_verdict(comparisons[place], p_difference, p_equivalence, levels)
    return found


def _is_tested(comparison: Comparison) -> bool:
    return not comparison.difference.no_verdict and comparison.difference.n_pairs >= FEWEST_PAIRS


def _adjusted(part: Sequence[Comparison]) -> tuple[list[float], list[float]]:
    """The adjusted p-values of one family: of a difference, and of equivalence."""
    looked = [comparison.look for comparison in part if comparison.look is not None]
    if not looked:
        found = [comparison.difference for comparison in part]
        return holm([d.p_difference for d in found]), holm([d.p_equivalence for d in found])
    differences = [look.p_difference for look in looked]
    if part[0].other_margin is None:
        return differences, [look.p_equivalence for look in looked]
    # the looks were for another margin, and the sentence says so
    return differences, holm(
        [
            overall_p(c.difference.p_equivalence, c.looks, one_sided=True) if _is_tested(c) else 1.0
            for c in part
        ]
    )


def _levels(
    differences: Sequence[float], equivalences: Sequence[float], looks: Sequence[int]
) -> tuple[float, float]:
    """Below which a p-value, as it is, would decide, if it were the next one of its family to do so.

    Holm divides 0.05 among the tests that are not decided, and looks share what a test has.
    """
    planned = looks or (FEWEST_PAIRS,)  # one test at the end is like one look
    of_difference, of_equivalence = (
        LEVEL / max(1, sum(p >= LEVEL for p in adjusted)) for adjusted in (differences, equivalences)
    )
    return (
        nominal_level(planned, level=of_difference),
        nominal_level(planned, one_sided=True, level=of_equivalence),
    )


def _with_verdict(
    comparison: Comparison, p_difference: float, p_equivalence: float, levels: tuple[float, float]
) -> Comparison:
    difference = decided(comparison.difference, p_difference, p_equivalence, _learned(comparison))
    found = replace(
        comparison,
        difference=difference,
        p_difference=p_difference,
        p_equivalence=p_equivalence,
        levels=levels,
    )
    advised = found.advice
    columns = comparison.columns | {
        "p_difference_holm": p_difference,
        "p_equivalence_holm": p_equivalence,
        "level_difference": levels[0],
        "level_equivalence": levels[1],
        "verdict": difference.verdict or "",
        "n_seeds_if_equal": advised.if_equal if advised else None,
        "n_seeds_as_observed": advised.as_observed if advised else None,
    }
    return replace(found, columns=columns)


def _learned(comparison: Comparison) -> bool:
    seeds = [int(seed) for seed in str(comparison.columns["seeds"]).split(";")]
    margin = comparison.difference.margin
    return all(above_constant([(row, seeds)], margin) for row in (comparison.first, comparison.second))


def pooled_over_tasks(comparisons: Iterable[Comparison]) -> list[Pooled]:
    """One line for each pair of optimizers that is compared on three or more tasks of one family.

    A task with two versions would count twice, so its family has no line.
    """
    families: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.refused:
            continue
        first, second = comparison.first, comparison.second
        families[first.family, first.role, first.columns["design"], first.arm, second.arm].append(comparison)
    lines = []
    for part in families.values():
        tasks = [comparison.columns["task"] for comparison in part]
        if len(set(tasks)) < max(FEWEST_TASKS, len(tasks)):
            continue
        over_tasks = summary([comparison.difference.mean for comparison in part])
        columns = {
            name: part[0].columns[name] for name in ("model", "method", "k", "question", *PAIR_COLUMNS)
        }
        columns |= {
            "tasks": joined(tasks),
            "n_tasks": over_tasks.n,
            "mean_difference": over_tasks.mean,
            "std_over_tasks": over_tasks.std,
            "ci_low": over_tasks.ci_low,
            "ci_high": over_tasks.ci_high,
            "protocol": part[0].columns["protocol"],
            "model_revision": part[0].columns["model_revision"],
        }
        lines.append(Pooled(part, columns))
    return lines


def best_of_task(rows: Iterable[Row], comparisons: Iterable[Comparison]) -> list[Row]:
    """The rows with the highest test mean among rows of one task; empty where no best row can be known.

    Rows without a score do not count. If a row rests on one seed, or if two of the rows must not be compared,
    there is no best row.
    """
    scored = [row for row in rows if row.chosen]
    ids = {row.row_id for row in scored}
    if any(c.refused and {c.first.row_id, c.second.row_id} <= ids for c in comparisons):
        return []
    if any(len(row.chosen) < FEWEST_SEEDS for row in scored):
        return []
    top = max((row.columns["test_mean"] for row in scored), default=None)
    return [row for row in scored if row.columns["test_mean"] == top]


def equivalent_to(best: Iterable[Row], comparisons: Iterable[Comparison]) -> set[str]:
    """Ids of the rows whose comparison with one of the best rows has the verdict `equivalent`."""
    ids = {row.row_id for row in best}
    pairs = [
        (comparison.first.row_id, comparison.second.row_id)
        for comparison in comparisons
        if comparison.difference.verdict == "equivalent"
    ]
    return {second for first, second in pairs if first in ids} | {
        first for first, second in pairs if second in ids
    }
