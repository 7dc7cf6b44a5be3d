"""The analysis of seeds and rows beside a case computed by hand, scipy, and simulated truth."""

import math

import numpy as np
import pytest
from scipy import stats

from peft_study.findings import chance
from peft_study.records.scores import Chance

# Means of seeds are 2 and 5, of rows 1.5, 3 and 6, of all 3.5. Squares sum to 3 x (2.25 + 2.25) =
# 13.5 for seeds, 2 x (4 + 0.25 + 6.25) = 21 for rows, and 41.5 in total: 7 are left.
VALUES = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0]])
BY_HAND = Chance(mean=3.5, seeds=2, rows=3, of_seeds=13.5, of_rows=10.5, of_rest=3.5)

SEEDS_ALONE = np.array([[0.71], [0.75], [0.74], [0.69], [0.78]])


def test_two_way_analysis_by_hand() -> None:
    found = chance.two_way(VALUES)
    assert vars(found) == pytest.approx(vars(BY_HAND))
    assert chance.error(found) == pytest.approx(math.sqrt((13.5 + 10.5 - 3.5) / 6))
    degrees = 20.5**2 / (13.5**2 / 1 + 10.5**2 / 2)
    assert chance.freedom(found) == pytest.approx(degrees, rel=1e-5)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(20.5 / 6)
    assert chance.reach(found) == pytest.approx(half, rel=1e-4)
    assert chance.reach(found, 0.9) < half
    # (13.5 - 3.5) of the 20.5 only more seeds make smaller, (10.5 - 3.5) only more rows.
    assert chance.shares(found) == pytest.approx((10 / 20.5, 7 / 20.5))


def test_rows_that_a_metric_leaves_out_do_not_count() -> None:
    # NaN with one seed is enough: such a row is not crossed with all seeds.
    more = np.insert(VALUES, 1, [[np.nan, 5.0], [7.0, np.nan]], axis=1)
    assert more.shape == (2, 5)
    assert chance.two_way(more) == chance.two_way(VALUES)
    of_run = np.array([0.0, np.nan, 1.0, 1.0, 1.0])
    assert chance.lower_end(of_run) == chance.lower_end(of_run[~np.isnan(of_run)])


def test_where_nothing_varies_nothing_is_left_to_chance() -> None:
    found = chance.two_way(np.full((5, 40), 0.25))
    assert vars(found) == vars(Chance(0.25, 5, 40, 0.0, 0.0, 0.0))
    assert (chance.error(found), chance.reach(found)) == (0.0, 0.0)
    assert chance.p_value(found) is None
    assert chance.p_equivalence(found, 0.3) == 0.0
    assert chance.p_equivalence(found, 0.25) == 1.0
    assert chance.shares(found) is None
    assert chance.seeds_needed(found, 0.01) == 2
    assert chance.detectable(found) == 0.0


def test_seeds_alone_give_the_paired_t_test() -> None:
    others = np.array([[0.70], [0.71], [0.75], [0.66], [0.73]])
    found = chance.two_way(SEEDS_ALONE - others)
    expected = stats.ttest_rel(SEEDS_ALONE[:, 0], others[:, 0])
    low, high = expected.confidence_interval(0.95)
    reach = chance.reach(found)
    assert (found.mean - reach, found.mean + reach) == pytest.approx((low, high))
    assert chance.p_value(found) == pytest.approx(expected.pvalue)
    assert chance.freedom(found) == 4
    assert chance.rows_needed(found, 0.01) is None


def test_the_lower_end_of_a_run_is_that_of_a_t_interval() -> None:
    right = np.array([1.0] * 30 + [0.0] * 10)
    low, _ = stats.ttest_1samp(right, 0.0).confidence_interval(0.95)
    assert chance.lower_end(right) == pytest.approx(low)


def test_the_error_is_never_less_than_of_seeds_or_of_rows_alone() -> None:
    # By chance the rest may be larger than both; S + R - E would be negative.
    for of_seeds, of_rows, largest in [(1.0, 2.0, 2.0), (3.0, 2.0, 3.0), (6.0, 7.0, 8.0)]:
        found = Chance(0.0, 5, 100, of_seeds, of_rows, of_rest=5.0)
        assert chance.error(found) == pytest.approx(math.sqrt(largest / 500))


def test_two_one_sided_tests_agree_with_the_90_percent_interval() -> None:
    found = chance.two_way(SEEDS_ALONE - 0.73)
    inside = abs(found.mean) + chance.reach(found, 0.90)
    assert chance.p_equivalence(found, inside) == pytest.approx(0.05)
    assert chance.p_equivalence(found, inside * 1.01) < 0.05 < chance.p_equivalence(found, 0.01)
    # The sign does not matter.
    assert chance.p_equivalence(chance.two_way(0.73 - SEEDS_ALONE), inside) == pytest.approx(0.05)


def test_other_numbers_of_seeds_and_rows() -> None:
    # Effects vary by (13.5 - 3.5) / 3 rows for seeds and (10.5 - 3.5) / 2 seeds for rows.
    expected = Chance(3.5, 4, 6, 3.5 + 6 * 10 / 3, 3.5 + 4 * 7 / 2, 3.5)
    assert vars(chance.resized(BY_HAND, 4, 6)) == pytest.approx(vars(expected))
    assert vars(chance.resized(BY_HAND, 2, 3)) == pytest.approx(vars(BY_HAND))


@pytest.mark.parametrize("distance", [0.1, 0.04, 0.02, 0.01, 0.005])
def test_seeds_needed_take_the_t_quantile_of_their_own_number(distance: float) -> None:
    deviation = SEEDS_ALONE.std(ddof=1)
    enough = (
        n for n in range(2, 1000) if stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n) < distance
    )
    assert chance.seeds_needed(chance.two_way(SEEDS_ALONE), distance) == next(enough)


def test_seeds_and_rows_needed_are_the_fewest_that_are_enough() -> None:
    found = Chance(mean=0.02, seeds=5, rows=256, of_seeds=0.4, of_rows=0.5, of_rest=0.1)

    def reach(seeds: int, rows: int) -> float:
        return chance.reach(chance.resized(found, seeds, rows))

    seeds, rows = chance.seeds_needed(found, 0.05), chance.rows_needed(found, 0.05)
    assert seeds == next(n for n in range(2, 1000) if reach(n, 256) < 0.05)
    assert rows == next(n for n in range(2, 100_000) if reach(5, n) < 0.05)
    stricter = chance.seeds_needed(found, 0.05, level=0.99)
    assert stricter is not None
    assert stricter > seeds
    # No number of seeds makes up for 256 rows, and none of rows for five seeds.
    assert chance.seeds_needed(found, 0.01) is None
    assert chance.rows_needed(found, 0.001) is None


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 6, 9, 10, 20, 100])
def test_the_detectable_difference_is_shown_with_a_power_of_80_percent(seeds: int) -> None:
    values = np.linspace(0.0, 1.0, seeds)[:, None]
    found, degrees = chance.two_way(values), seeds - 1
    distance = chance.detectable(found) / chance.error(found)
    # scipy has no digits for tails so thin that they round to nothing, and says NaN.
    critical = stats.t.ppf(0.975, degrees)
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, degrees, distance))
    assert stats.nct.sf(critical, degrees, distance) + wrong_side == pytest.approx(0.80)


def test_intervals_cover_the_truth_over_seeds_and_rows() -> None:
    # Answers are right where 0.84 + row + seed + rest > 0. If rows were treated as fixed, by a t
    # interval of the five seeds' scores alone, 84% of these intervals would cover the truth.
    rng, replications, ratio = np.random.default_rng(0), 300, 0.005
    truth = stats.norm.cdf(0.84 / math.sqrt(2 + ratio))
    covered = []
    for _ in range(replications):
        row, rest = rng.standard_normal(256), rng.standard_normal((5, 256))
        seed = rng.standard_normal((5, 1)) * math.sqrt(ratio)
        found = chance.two_way((0.84 + row + seed + rest > 0).astype(np.float64))
        covered.append(abs(found.mean - truth) < chance.reach(found))
    assert 0.91 < np.mean(covered) < 0.99


def test_a_mean_over_tasks_adds_up_squared_errors() -> None:
    rng = np.random.default_rng(0)
    one, other = (chance.two_way(of + rng.normal(size=(4, 30))) for of in (0.0, 1.0))
    alone = chance.over_tasks([one])
    assert alone.reach() == pytest.approx(chance.reach(one))
    assert alone.p_zero() == pytest.approx(chance.p_value(one))
    both = chance.over_tasks([one, other])
    assert both.mean == pytest.approx((one.mean + other.mean) / 2)
    errors = chance.error(one), chance.error(other)
    assert both.error == pytest.approx(math.hypot(*errors) / 2)
    # Two tasks that are alike know their error twice as well.
    twice = chance.over_tasks([one, one])
    assert twice.freedom == pytest.approx(2 * chance.freedom(one), rel=1e-5)
    nothing = chance.over_tasks([chance.two_way(np.full((3, 5), 0.5))])
    assert (nothing.p_zero(), nothing.p_equivalence(0.6), nothing.p_equivalence(0.5)) == (0, 0, 1)
