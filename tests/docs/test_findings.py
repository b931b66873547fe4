"""docs/findings.md against the published boards from which it is made."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from types import ModuleType, SimpleNamespace

import pytest

from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.comparison import Comparison
from tests.conftest import ROOT
from tests.helpers.manual import script
from tests.helpers.published import draws_as_published


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    """docs/findings.py, which is a script and no part of the package."""
    return script("findings")


@pytest.fixture(scope="module")
def boards(findings: ModuleType) -> dict[str, Leaderboard]:
    """The boards on the page, built once for all of these tests."""
    return findings.published()


def sgdm_on_trec(board: Leaderboard) -> Comparison:
    """The comparison of SGDM with SGD on TREC at the matched rate."""
    wanted = ("matched", "trec", "sgdm")
    [pair] = [p for p in board.comparisons if (p.question, p.columns["task"], p.second.label) == wanted]
    return pair


def test_the_page_is_what_the_records_give(findings: ModuleType, boards: dict[str, Leaderboard]):
    assert findings.page(boards) == (ROOT / "docs" / findings.PAGE).read_text()
    if draws_as_published():
        for name, drawn in findings.plots(boards).items():
            assert drawn == (ROOT / "docs" / name).read_text(), name
            assert f"({name})" in (ROOT / "docs" / findings.PAGE).read_text()


def test_other_optimizers_have_a_section_of_their_own(findings: ModuleType, boards: dict[str, Leaderboard]):
    """The tables on SGD and SGDM have none of its numbers, and its tables come from its board alone."""
    board = boards[findings.RIVALS]
    tables, section = findings.page(boards).split("## Other optimizers")
    pair = sgdm_on_trec(board)
    added = findings._interval(pair.difference)
    assert f"| trec | SGD, 0.3 | SGDM, 0.3 | {added} | {pair.difference.n_pairs} |" in section
    assert added not in tables
    tuned = [row for row in board.rows if (row.role, row.name) == ("tuned", "SGD")]
    scores = " | ".join(f"{100 * row.columns['test_mean']:.1f}" for row in tuned)  # sorted by task
    assert f"| SGD | {scores} |" in section


def test_what_momentum_adds_is_said_of_confirming_seeds(findings: ModuleType, boards: dict[str, Leaderboard]):
    found = findings._momentum(boards["digits-momentum"])
    assert "| SGD, 3 | SGDM momentum=0.5, 3 | +6.6 (+2.0 to +11.1) | 10 | yes |" in found
    tuned_alone = findings._momentum(boards["six-tasks-minilm-head"])
    assert len(tuned_alone.splitlines()) == 2  # the head of the table


def test_looks_of_a_board_with_several_designs(findings: ModuleType):
    def standing(ended: bool, n_seeds: int) -> SimpleNamespace:
        look = SimpleNamespace(n_seeds=n_seeds)
        return SimpleNamespace(has_ended=ended, replayed=SimpleNamespace(pairs={"a": look}))

    def said(*confirming: tuple[tuple[int, ...], SimpleNamespace]) -> list[str]:
        return list(findings._looks(confirming))

    ended, growing = standing(True, 10), standing(False, 5)
    assert said() == []
    assert said(((5, 10), ended), ((5, 10), ended)) == ["until decided, looks at 5 and 10"]
    assert said(((5, 10), growing)) == ["until decided, looks at 5 and 10; so far 5"]
    assert said(((5, 10), ended), ((5, 10), growing)) == [
        "until decided, looks at 5 and 10; so far at least 5"
    ]
    assert said(((5, 10), ended), ((5, 10, 20), standing(False, 10))) == [
        "until decided, looks at 5 and 10",
        "until decided, looks at 5, 10 and 20; so far 10",
    ]


def test_a_sentence_whose_verdict_has_changed_stops_the_page(
    findings: ModuleType, boards: dict[str, Leaderboard]
):
    board = boards["digits-momentum"]
    changed = [
        replace(pair, difference=replace(pair.difference, verdict="inconclusive"))
        if pair.question == "matched"
        else pair
        for pair in board.comparisons
    ]
    with pytest.raises(findings.Changed, match="The page says: equivalent"):
        findings.page(boards | {"digits-momentum": replace(board, comparisons=changed)})


def test_a_board_of_one_rate_answers_at_this_rate_alone(findings: ModuleType, boards: dict[str, Leaderboard]):
    """It shares tasks and tuning runs with the board of the whole grid, whose tables stay as they are."""
    name = "paper-prompt-small-rate"
    assert name not in findings._with_grids(boards)
    both = findings._differences(findings._without_rivals(boards), "matched")
    for rate in ("0.1", "0.03"):
        assert any(line.startswith("| snli") and line.endswith(f"| {rate} |") for line in both.splitlines())
    without = {key: board for key, board in boards.items() if key != name}
    kept = findings._without_rivals(without)
    assert findings._differences(findings._without_rivals(boards), "tuned") == findings._differences(
        kept, "tuned"
    )
    assert findings._budget(kept) in findings.page(boards)
    assert findings._sensitivity(kept) in findings.page(boards)


def test_each_rate_is_counted_from_the_one_that_dev_chose(
    findings: ModuleType, boards: dict[str, Leaderboard]
):
    board = boards["paper-prompt-small"]
    curve = findings._curves(board, "sgdm")["trec"]
    pair = sgdm_on_trec(board)
    assert curve[0]["learning_rate"] == pair.columns["first_learning_rate"]
    assert [curve[steps]["learning_rate"] for steps in sorted(curve)] == [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    scores = {
        name: [
            run.test.metric
            for row in board.rows
            if (row.role, row.columns["task"], row.label) == ("tuned", "trec", name)
            for run in row.runs
            if run.spec.learning_rate == 1.0
        ]
        for name in ("sgd", "sgdm")
    }
    assert all(len(of_seeds) == 3 for of_seeds in scores.values())
    added = 100 * (fmean(scores["sgdm"]) - fmean(scores["sgd"]))
    assert findings._added_at(boards, "paper-prompt-small", "trec", 1) == f"{added:+.1f}"
    for name, of_seeds in scores.items():
        assert (
            findings._score_at(boards, "paper-prompt-small", "trec", 1, name)
            == f"{100 * fmean(of_seeds):.1f} %"
        )


def test_what_is_said_of_the_decoder_at_a_large_rate(boards: dict[str, Leaderboard]):
    """Both arms that start slowly have their best scores on Subj there, above any of SGD."""
    means = {
        (row.label, rate): fmean(run.test.metric for run in row.runs if run.spec.learning_rate == rate)
        for row in boards["smollm2-causal"].rows
        if (row.role, row.columns["task"]) == ("tuned", "subj")
        for rate in (0.003, 0.01, 0.03, 0.1, 0.3)
    }
    best_of_sgd = max(mean for (label, _), mean in means.items() if label == "sgd")
    assert means["sgd", 0.1] == best_of_sgd
    for label in ("sgdm", "sgd_matched"):
        assert means[label, 0.3] == max(mean for (of, _), mean in means.items() if of == label)
        assert means[label, 0.3] > best_of_sgd


def test_a_mean_over_tasks_is_of_steps_that_each_task_has(
    findings: ModuleType, boards: dict[str, Leaderboard]
):
    curves = findings._curves(boards["paper-prompt-small"], "sgdm")
    lowest, highest = (max(map(min, curves.values())), min(map(max, curves.values())))
    assert findings._common_steps(curves) == list(range(lowest, highest + 1))
    assert lowest < 0 < highest
    added = [100 * curve[lowest]["mean_difference"] for curve in curves.values()]
    cell = f"{fmean(added):+.1f} ({min(added):+.1f} to {max(added):+.1f})"
    assert f"| `paper-prompt-small` | 5 | {-lowest} steps below |" in (
        line := next(line for line in findings._each_rate(boards).splitlines() if "paper" in line)
    )
    assert cell in line


def test_a_difference_below_the_chosen_rate_that_is_too_large_stops_the_page(
    findings: ModuleType, boards: dict[str, Leaderboard]
):
    farthest = float(findings._farthest_below(boards, "paper-prompt-small", at_most=100))
    assert farthest > 0
    with pytest.raises(findings.Changed, match="points below the chosen rate"):
        findings._farthest_below(boards, "paper-prompt-small", at_most=farthest / 2)


def test_the_readme_says_what_the_board_says(boards: dict[str, Leaderboard]):
    readme = " ".join((ROOT / "README.md").read_text().split())
    said = {
        (256, "0.5"): "6.6 points with 0.5",
        (256, "0.9"): "4.5 with 0.9",
        (1024, "0.5"): "0.5 gains 14.4 points",
        (1024, "0.9"): "0.9 loses 9.0",
    }
    for pair in boards["digits-momentum"].comparisons:
        size, beta = pair.first.runs[0].spec.batch_size, pair.second.label.removeprefix("sgdm momentum=")
        if pair.question == "matched" and (text := said.pop((size, beta), None)):
            assert text in readme
            assert f"{abs(100 * pair.difference.mean):.1f}" in text
            assert pair.difference.verdict == ("a better" if "loses" in text else "b better")
        if pair.question == "matched" and size == 64 and beta in ("0.5", "0.9"):
            assert pair.difference.verdict == "equivalent"
    assert not said


def test_the_readme_says_what_the_board_of_a_small_rate_says(
    findings: ModuleType, boards: dict[str, Leaderboard]
):
    readme = (ROOT / "README.md").read_text()
    manual = " ".join((ROOT / "docs" / "results.md").read_text().split())
    verdicts = {}
    for pair in boards["paper-prompt-small-rate"].comparisons:
        if pair.question == "matched" and pair.second.label == "sgdm":
            task, verdict = pair.columns["task"], pair.difference.verdict
            [line] = [line for line in readme.splitlines() if line.startswith(f"| {task} |")]
            cell = f"{findings._interval(pair.difference)}: {verdict}"
            assert line.endswith(f"| {cell} |")
            assert cell.replace(":", ",") in manual
            verdicts[task] = verdict
    assert verdicts == {
        "trec": "equivalent",
        "snli": "equivalent",
        "sst5": "inconclusive",
        "sst2": "equivalent",
    }
    assert "equivalent on three of four tasks, SNLI among them" in " ".join(readme.split())


def test_the_readme_says_what_the_board_of_six_tasks_says(boards: dict[str, Leaderboard]):
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "SGD is better on TREC by 3.1 points" in readme
    said = sgdm_on_trec(boards["six-tasks-confirming"]).difference
    assert (said.verdict, f"{abs(100 * said.mean):.1f}") == ("a better", "3.1")


def test_readme_and_manual_say_what_the_board_of_rivals_says(boards: dict[str, Leaderboard]):
    readme, manual = (
        " ".join((ROOT / page).read_text().split()) for page in ("README.md", "docs/results.md")
    )
    assert "by 5.8 in half as many steps; SignSGD, too, is better there without momentum, by 5.4" in readme
    assert "added to SGD (5.8 points as SGDM, 6.7 as Nesterov's) or to SignSGD (5.4). Nothing else" in manual
    decided = {
        pair.second.label: (
            pair.columns["task"],
            pair.difference.verdict,
            round(-100 * pair.difference.mean, 1),
        )
        for pair in boards["rivals-minilm"].comparisons
        if pair.difference.verdict != "inconclusive"
    }
    assert decided == {
        "sgdm": ("trec", "a better", 5.8),
        "nesterov": ("trec", "a better", 6.7),
        "signum": ("trec", "a better", 5.4),
    }


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_table_of_the_papers_tasks_is_that_of_the_board(
    findings: ModuleType, boards: dict[str, Leaderboard], page: str
):
    lines = (ROOT / page).read_text().splitlines()
    verdicts = {"b better": "SGDM better", "equivalent": "equivalent", "inconclusive": "inconclusive"}
    n_found = 0
    for pair in boards["paper-prompt-small"].comparisons:
        if pair.question == "matched" and pair.second.label == "sgdm":
            means = [
                f"{100 * findings._mean(row, pair.columns['seeds']):.1f}" for row in (pair.first, pair.second)
            ]
            difference = findings._interval(pair.difference)
            cells = [pair.first.columns["task"], *means, difference, pair.difference.n_pairs]
            start = f"| {' | '.join(map(str, cells))} | {verdicts[pair.difference.verdict]}"
            assert any(line.startswith(start) for line in lines), start
            n_found += 1
    assert n_found == 5
