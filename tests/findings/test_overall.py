"""Measures over all tasks, where what they should say is known."""

import numpy as np
import pytest

from peft_study.findings.overall import DRAWS, FEWEST_TASKS, Scores, overall, rank, redrawn
from peft_study.records.scores import OverTasks


def right(share: float, seeds: int = 5, rows: int = 200, seed: int = 0) -> np.ndarray:
    """Return answers of which about `share` are right."""
    return (np.random.default_rng(seed).random((seeds, rows)) < share).astype(np.float64)


def tasks(*shares: float, number: int = 6) -> list[Scores]:
    """Return redrawn scores of methods with these shares of right answers."""
    return [
        redrawn([right(of, seed=10 * task + n) for n, of in enumerate(shares)], task)
        for task in range(number)
    ]


def pair(method: str, reference: str, mean: float, p: float = 0.01) -> OverTasks:
    return OverTasks(method, reference, mean, mean - 0.1, mean + 0.1, p, 1.0)


def test_few_tasks_give_ranks_alone() -> None:
    names, pairs = ("lora", "full_ft"), [pair("lora", "full_ft", -0.1)]
    assert overall(names, "full_ft", [], []) == []
    few = tasks(0.7, 0.8, number=FEWEST_TASKS - 1)
    ours, full = overall(names, "full_ft", few, pairs)
    assert (ours.rank, full.rank, ours.tasks) == (2, 1, FEWEST_TASKS - 1)
    assert (ours.iqm, ours.iqm_low, ours.better) == (None, None, None)
    # A method alone has no rank worth telling.
    assert overall(names[:1], None, tasks(0.7, number=FEWEST_TASKS - 1), []) == []


def test_a_rank_leaves_out_what_is_told_apart_and_nothing_else() -> None:
    pairs = [
        pair("a", "b", 0.10, p=0.2),
        pair("a", "c", 0.20),
        pair("a", "d", 0.30),
        pair("c", "b", -0.10, p=0.06),
        pair("d", "b", -0.20),
        pair("c", "d", 0.0, p=1.0),
    ]
    assert rank("a", pairs) == (1, 1, 2)
    assert rank("b", pairs) == (2, 1, 3)
    # Equals share their rank.
    assert rank("c", pairs) == (3.5, 2, 4)
    assert rank("d", pairs) == (3.5, 3, 4)


def test_a_method_that_is_better_everywhere() -> None:
    pairs = [pair("lora", "full_ft", 0.45)]
    ours, full = overall(("lora", "full_ft"), "full_ft", tasks(0.95, 0.5), pairs)
    assert (ours.rank, ours.rank_low, ours.rank_high) == (1, 1, 1)
    assert (full.rank, full.rank_low, full.rank_high) == (2, 2, 2)
    assert (ours.better, ours.better_low, ours.better_high) == (1.0, 1.0, 1.0)
    assert ours.iqm_low is not None
    assert ours.iqm is not None
    assert full.iqm_high is not None
    assert full.iqm_high < ours.iqm_low < ours.iqm
    # Nothing improves over itself.
    assert (full.better, full.better_low, full.better_high) == (None, None, None)
    assert ours.tasks == full.tasks == 6


def test_equal_methods_share_their_rank_and_improve_half_of_the_time() -> None:
    same = [redrawn([np.full((3, 10), 0.7)] * 2, task) for task in range(6)]
    pairs = [pair("lora", "full_ft", 0.0, p=1.0)]
    ours, full = overall(("lora", "full_ft"), "full_ft", same, pairs)
    assert (ours.rank, full.rank, ours.better) == (1.5, 1.5, 0.5)
    assert (ours.rank_low, ours.rank_high) == (1, 2)
    assert ours.iqm == ours.iqm_low == ours.iqm_high == pytest.approx(0.7)


def test_the_interquartile_mean_by_hand() -> None:
    # Six tasks of two seeds: of the twelve scores, the lowest three and the highest three are left
    # out, whatever tasks they are of. What is left are 0.4, 0.5, and twice 0.6 and 0.7.
    runs = [(0.0, 0.1), (0.1, 0.4), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.9, 1.0)]
    found = [
        redrawn([np.repeat(np.array(of)[:, None], 4, axis=1)], task) for task, of in enumerate(runs)
    ]
    (row,) = overall(("lora",), None, found, [])
    assert row.iqm == pytest.approx(3.5 / 6)
    assert row.better is None


def test_draws_move_seeds_and_rows() -> None:
    values = [right(0.7, seed=1), right(0.8, seed=2)]
    found = redrawn(values, 0)
    assert found.shape == (1 + DRAWS, 2, 5)
    assert found[0] == pytest.approx(np.stack([of.mean(axis=1) for of in values]))
    # Runs that are all the same answer other rows otherwise: sqrt(p (1 - p) / rows).
    same = np.repeat(right(0.7, seeds=1), 5, axis=0)
    drawn = redrawn([same], 0)[1:, 0]
    assert np.ptp(drawn, axis=1) == pytest.approx(0.0, abs=1e-12)
    assert drawn[:, 0].std() == pytest.approx(same[0].std(ddof=1) / 200**0.5, rel=0.05)
    # Rows that are all answered alike leave seeds: the standard error of their mean.
    of_seeds = np.repeat(np.array([[0.6], [0.7], [0.8], [0.75]]), 30, axis=1)
    means = redrawn([of_seeds], 0)[1:, 0].mean(axis=1)
    assert means.std() == pytest.approx(of_seeds[:, 0].std(ddof=1) / 2, rel=0.05)


def test_methods_are_redrawn_on_the_same_rows() -> None:
    # A method that answers as another does, but with other seeds, moves with it.
    rows = np.repeat(right(0.7, seeds=1), 5, axis=0)
    found = redrawn([rows, rows - 0.1], 0)
    assert found[:, 0] - found[:, 1] == pytest.approx(0.1)


def test_the_same_values_give_the_same_bytes() -> None:
    first, again = tasks(0.7, 0.8), tasks(0.7, 0.8)
    assert [of.tobytes() for of in first] == [of.tobytes() for of in again]
    told = [repr(overall(("lora", "full_ft"), "full_ft", of, [])) for of in (first, again)]
    assert told[0] == told[1]
    values = [right(0.7)]
    assert redrawn(values, 0).tobytes() != redrawn(values, 1).tobytes()
