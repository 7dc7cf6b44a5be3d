"""What a reproduction hangs on, on made-up cells: effects, combinations, gaps and their shares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import builders
from conftest import ROOT
from peft_study.findings import comparisons, shares
from peft_study.findings.combinations import choosing, combinations
from peft_study.findings.comparisons import holm
from peft_study.findings.ledger import ledger
from peft_study.findings.results import PublishedRow
from peft_study.records.scores import Cell, Rows
from peft_study.records.study import ModelInfo, SweepInfo
from peft_study.records.variants import Effect, Ledger, LedgerEntry

Array = NDArray[np.float64]
SEEDS, ROWS = 5, 400
IDS = [f"row-{number}" for number in range(ROWS)]
HALF = choosing(IDS)
METRICS = {"rte": "accuracy"}
STUDY = builders.study(
    metrics=METRICS, model=ModelInfo("FacebookAI/roberta-base", None, 64), published=("made up",)
)
PAPER = PublishedRow(
    source="made up",
    table="1",
    citation="A paper, table 1",
    model="roberta-base",
    method="lora",
    weights=("query", "value"),
    rank=8,
    task="rte",
    metric="accuracy",
    is_fraction=True,
    published=0.80,
    published_std=0.01,
    published_seeds=5,
    ours=0.70,
    ours_std=0.01,
    n=5,
    difference=-0.10,
    like=False,
    note="ours starts elsewhere",
)


def noise(number: int, of_seeds: float = 0.01, of_rest: float = 0.1) -> Array:
    """Return what seeds and rows differ by, of shape (seeds, rows), with a mean of zero."""
    rng = np.random.default_rng(number)
    found = of_seeds * rng.standard_normal((SEEDS, 1)) + of_rest * rng.standard_normal(
        (SEEDS, ROWS)
    )
    return found - found.mean()


BASE = 0.70 + noise(0)


def cell(place: str, values: Array, seeds: Sequence[int] = range(SEEDS)) -> Cell:
    """Return a cell whose values are of `seeds`, in that order."""
    found = builders.cell("lora", "rte", *values.mean(axis=1), variant=place)
    runs = dict(zip(map(str, seeds), found.seeds.values(), strict=True))
    return replace(found, seeds=runs, data={"validation": Rows(ROWS, "0")})


def entries(places: Mapping[str, Any]) -> list[LedgerEntry]:
    """Return an entry a place, whose name lists its settings; `study` is the study itself."""
    found = []
    for place in places:
        settings = () if place == "study" else tuple(place.split("+"))
        kind = ("study", "alone", "pair", "together")[min(len(settings), 3)]
        found.append(LedgerEntry("lora", "rte", kind, settings, place))  # type: ignore[arg-type]
    return found


def judge(values: Mapping[str, Array], *published: PublishedRow, **given: Any) -> Ledger:
    """Return the ledger of these values by place."""
    cells = {place: cell(place, of) for place, of in values.items()} | given.get("cells", {})
    listed = given.get("entries") or entries(values)
    study = given.get("study", STUDY)

    def values_of(of: Cell) -> dict[str, Array]:
        return {"accuracy": values[of.variant]}

    return ledger(study, listed, cells, values_of, lambda _: IDS, published)


def choose(values: Mapping[str, Array], together: bool = True, **given: Any) -> list[Any]:
    """Return the kinds and settings of the combinations that are chosen."""
    cells = {place: cell(place, of) for place, of in values.items()}
    found = combinations(
        entries(values),
        cells,
        lambda of: {"accuracy": values[of.variant]},
        lambda _: IDS,
        METRICS,
        together,
        given.get("fits", lambda settings: True),
    )
    assert all(entry.place is None for entry in found)
    return [(entry.kind, *entry.settings) for entry in found]


def one(found: Ledger, name: str) -> Effect:
    return next(of for of in found.effects if "+".join(of.settings) == name)


def test_an_effect_is_the_variant_minus_the_study_seed_by_seed() -> None:
    """The variant's seeds come in another order; paired, nothing of the seeds' spread is left."""
    up, order = BASE + 0.05 + noise(1, 0, 0.01), [4, 2, 0, 1, 3]
    values = {"study": BASE, "up": up[order], "down": BASE - 0.05}
    found = judge(values, cells={"up": cell("up", up[order], order)})
    effect = one(found, "up")
    assert (effect.n, effect.kind, effect.metric) == (5, "alone", "accuracy")
    assert effect.mean == pytest.approx(0.05, abs=1e-3)
    assert effect.low is not None
    assert effect.low > 0.045
    assert one(found, "down").mean == pytest.approx(-0.05)
    assert effect.differs


def test_single_settings_are_corrected_together_and_combinations_together() -> None:
    names = ("a", "b", "c", "a+b", "a+b+c")
    values = {"study": BASE} | {n: BASE + 0.004 * i + noise(i) for i, n in enumerate(names, 1)}
    found = judge(values)
    for family in (names[:3], names[3:]):
        rows = [one(found, name) for name in family]
        assert [row.p_holm for row in rows] == pytest.approx(holm([row.p or 0.0 for row in rows]))
        assert any(row.p_holm != row.p for row in rows)
    beyond = [row.beyond for name in names[3:] if (row := one(found, name))]
    p = holm([row.p or 0.0 for row in beyond if row])
    assert [row.p_holm for row in beyond if row] == pytest.approx(p)


def test_a_combination_is_judged_on_the_rows_that_did_not_choose_it() -> None:
    """Where it was chosen the settings do 0.3 more: nothing of that is in what is told of it."""
    lucky = np.where(HALF, 0.3, 0.0)
    a, b = BASE + 0.02 + noise(1) + lucky, BASE + 0.03 + noise(2) + lucky
    both = BASE + 0.01 + noise(3) + 2 * lucky
    found = judge({"study": BASE, "a": a, "b": b, "a+b": both})
    effect = one(found, "a+b")
    assert effect.mean == pytest.approx((both - BASE)[:, ~HALF].mean())
    assert (effect.chance and effect.chance.rows) == ROWS - HALF.sum()
    rest = comparisons.tested((both - a - b + BASE)[:, ~HALF], 0.02)
    assert effect.beyond is not None
    assert effect.beyond.mean == pytest.approx(rest.mean)
    assert effect.beyond.mean == pytest.approx(-0.04, abs=0.02)
    assert (effect.beyond.low, effect.beyond.high) == pytest.approx((rest.low, rest.high))
    assert one(found, "a").mean == pytest.approx((a - BASE).mean())


def test_halves_are_of_the_rows_and_not_of_their_order() -> None:
    assert HALF.sum() == ROWS / 2
    again = choosing(IDS[::-1])
    assert (again[::-1] == HALF).all()


def test_the_largest_two_and_all_that_raise_are_chosen_by_the_choosing_half() -> None:
    effects = {"a": 0.02, "b": -0.06, "c": 0.05, "d": 0.04, "e": -0.01}
    on_half = {"study": BASE} | {n: BASE + np.where(HALF, of, -of) for n, of in effects.items()}
    # Named in the order of the entries.
    assert choose(on_half) == [("pair", "b", "c"), ("together", "a", "c", "d")]
    assert choose(on_half, together=False) == [("pair", "b", "c")]
    rows = {"study": BASE} | {
        n: BASE + np.where(HALF, of, 5.0 * (n == "e")) for n, of in effects.items()
    }
    assert choose(rows) == choose(on_half)


def test_settings_that_do_not_fit_are_not_put_together() -> None:
    values = {"study": BASE} | {
        n: BASE + of for n, of in zip("abc", (0.05, 0.04, 0.03), strict=True)
    }

    def fits(settings: tuple[str, ...]) -> bool:
        return not {"a", "b"} <= set(settings)

    assert choose(values, fits=fits) == [("pair", "a", "c")]  # all that raise are that pair
    assert choose(values, fits=lambda settings: len(settings) < 2) == []
    assert choose({"study": BASE, "a": BASE + 0.05}) == []
    equal = {"study": BASE} | dict.fromkeys(("z", "y", "x"), BASE + 0.05)
    assert choose(equal) == [("pair", "z", "y"), ("together", "z", "y", "x")]


def test_what_has_not_learned_is_shown_but_neither_chosen_nor_named() -> None:
    fallen = np.full((SEEDS, ROWS), 0.49) + noise(1)
    values = {"study": BASE, "fallen": fallen, "a": BASE + 0.04, "b": BASE + 0.03}
    assert choose(values, together=False) == [("pair", "a", "b")]
    below = replace(PAPER, published=0.5)
    found = judge(values | {"fallen+a": fallen}, below)
    effect = one(found, "fallen")
    assert effect.unlearned == ("variant",)
    assert effect.mean == pytest.approx(-0.21)
    assert effect.differs
    assert one(found, "fallen+a").beyond is None
    (gap,) = found.gaps
    assert (gap.gap < 0, gap.clear, gap.names, gap.best) == (True, True, (), ())
    assert gap.unexplained == gap.gap
    assert [of.share for of in gap.shares if "fallen" in of.settings] == [None, None]


def test_where_neither_has_learned_nothing_is_decided() -> None:
    low = np.full((SEEDS, ROWS), 0.49) + noise(1)
    found = judge({"study": low, "a": low - 0.05 + noise(2), "b": BASE})
    assert one(found, "a").unlearned == ("study", "variant")
    assert (one(found, "a").p_holm, one(found, "a").differs) == (None, False)
    # A setting that makes a study learn has an effect, here alone in its family.
    effect = one(found, "b")
    assert (effect.unlearned, effect.differs) == (("study",), True)
    assert effect.p_holm == effect.p


def test_what_is_missing_is_named_and_what_changes_nothing_is_listed() -> None:
    broken = replace(cell("a", BASE), failed={"3": "the loss is nan"})
    listed = [
        *entries({"study": 0, "a": 0, "b": 0, "c": 0}),
        LedgerEntry("lora", "rte", "alone", ("d",), None),
        LedgerEntry("full_ft", "rte", "alone", ("a",), "other"),
        LedgerEntry("full_ft", "rte", "study", (), "gone"),
    ]
    values = {"study": BASE, "c": BASE, "other": BASE}
    found = judge(values, entries=listed, cells={"a": broken})
    assert [of.settings for of in found.effects] == [("c",)]
    assert [of.settings for of in found.nothing] == [("d",)]
    assert {(of.method, of.settings): of.reason for of in found.missing} == {
        ("lora", ("a",)): "seed 3: the loss is nan",
        ("lora", ("b",)): "it was not evaluated",
        ("full_ft", ()): "it was not evaluated",
        ("full_ft", ("a",)): "the study as it stands has no results",
    }


def test_the_setting_that_explains_the_gap_is_named_with_its_share() -> None:
    values = {"study": BASE, "start": BASE + 0.09 + noise(1), "alpha": BASE + noise(2)}
    values |= {"worse": BASE - 0.08 + noise(3), "some": BASE + 0.05 + noise(4)}
    values |= {"start+some": BASE + 0.095 + noise(5)}
    (gap,) = judge(values, PAPER).gaps
    assert (gap.gap, gap.ours, gap.n) == (pytest.approx(0.10), pytest.approx(0.70), 5)
    assert gap.note == "ours starts elsewhere"
    assert gap.names == ("start", "some")
    of = {share.settings: share for share in gap.shares}
    start, worse = of["start",], of["worse",]
    assert (start.points, start.share) == (pytest.approx(0.09), pytest.approx(0.9))
    assert start.share_low is not None
    assert start.share_high is not None
    assert 0.6 < start.share_low < 0.9 < start.share_high < 1.3
    assert worse.share == pytest.approx(-0.8)
    assert gap.best == ("start", "some")
    assert gap.unexplained == pytest.approx(0.005)
    # Above what is published, what lowers the score explains it.
    (gap,) = judge(values, replace(PAPER, published=0.62)).gaps
    assert (gap.names, gap.best) == (("worse",), ("worse",))
    assert gap.unexplained == pytest.approx(0.0)


def test_a_pair_of_which_one_goes_the_other_way_is_not_what_remains() -> None:
    values = {"study": BASE, "up": BASE + 0.08, "down": BASE - 0.05, "up+down": BASE + 0.03}
    (gap,) = judge(values, PAPER).gaps
    assert (gap.best, gap.unexplained) == (("up",), pytest.approx(0.02))


def test_a_gap_that_is_not_told_from_zero_is_not_divided() -> None:
    (gap,) = judge({"study": BASE, "a": BASE + 0.09}, replace(PAPER, published=0.705)).gaps
    assert (gap.clear, gap.shares, gap.names, gap.best) == (False, (), (), ())
    assert gap.unexplained == gap.gap


def test_gaps_are_to_the_same_model_method_task_and_metric_in_reported_scores() -> None:
    others: list[dict[str, Any]] = [
        {"model": "roberta-large"},
        {"method": "full_ft"},
        {"task": "cola"},
        {"ours": None},
    ]
    others += [{"metric": "f1"}]
    values = {"study": BASE, "a": BASE + 0.05}
    assert not judge(values, *(replace(PAPER, **of) for of in others)).gaps
    swept = replace(STUDY, sweep=SweepInfo("rte", (1, 8), (("query",), ("query", "value"))))
    assert not judge(values, replace(PAPER, rank=1), study=swept).gaps
    assert judge(values, replace(PAPER, rank=1)).gaps
    assert judge(values, PAPER, study=swept).gaps
    # The best evaluation is what papers report; what is judged chose no evaluation.
    best = cell("study", BASE)
    runs = {
        seed: replace(run, best=replace(run.best, scores={"accuracy": 0.75}))
        for seed, run in best.seeds.items()
    }
    found = judge(values, PAPER, cells={"study": replace(best, seeds=runs)})
    assert found.gaps[0].gap == pytest.approx(0.05)
    assert found.effects[0].mean == pytest.approx(0.05)
    # MNLI's published accuracy may be of the matched rows.
    row = replace(PAPER, note="ours is of the matched rows, as theirs")
    with pytest.raises(KeyError, match="accuracy_matched"):
        judge(values, row)


def seeds(*values: float) -> Array:
    return np.array(values)


def test_the_interval_of_a_share_is_fiellers() -> None:
    """With the deviation not printed the degrees of freedom are fixed: roots of a parabola."""
    b, v = seeds(0.70, 0.71, 0.69, 0.72, 0.70), seeds(0.78, 0.80, 0.77, 0.79, 0.78)
    found, (low, high) = shares.share(v, b, shares.Target(0.80, None, 5))
    t = stats.t.ppf(0.975, 4)
    gap, effect = 0.80 - b.mean(), (v - b).mean()
    # D(r) = effect - r gap; its square error: var(v - b + r b) / 5 + r^2 of_median(5) var(v) / 5
    spread = np.cov(v - b, b)
    published = shares.of_median(5) * v.var(ddof=1)
    square = gap**2 - t**2 * (spread[1, 1] + published) / 5
    middle = -2 * effect * gap - t**2 * 2 * spread[0, 1] / 5
    rest = effect**2 - t**2 * spread[0, 0] / 5
    assert found == pytest.approx(effect / gap)
    assert (low, high) == pytest.approx(tuple(sorted(np.roots([square, middle, rest]))))


def test_the_deviation_of_the_published_number_is_in_the_interval() -> None:
    b, v = seeds(0.70, 0.71, 0.69, 0.72, 0.70), seeds(0.78, 0.80, 0.77, 0.79, 0.78)
    widths = []
    for std in (0.0, 0.01, 0.02, 0.04):
        _, (low, high) = shares.share(v, b, shares.Target(0.80, std, 5))
        assert low is not None
        assert high is not None
        widths.append(high - low)
    assert all(more > 1.05 * less for less, more in pairwise(widths))
    # By hand, for the gap itself: Satterthwaite's degrees of freedom.
    own, published = b.var(ddof=1) / 5, shares.of_median(5) * 0.02**2 / 5
    freedom = (own + published) ** 2 / (own**2 / 4 + published**2 / 4)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(own + published)
    mean = 0.80 - b.mean()
    assert shares.distance(b, shares.Target(0.80, 0.02, 5)) == pytest.approx(
        (mean, mean - reach, mean + reach)
    )
    assert shares.of_median(5) == pytest.approx(1.43, abs=0.03)
    assert shares.of_median(1) == 1


@pytest.mark.parametrize(
    ("variant", "study", "value", "std", "expected"),
    [
        ((0.8, 0.81), (0.7, 0.71), 0.705, None, (None, None, None)),  # no gap
        ((0.8, 0.81), (0.7, 0.8), 0.9, None, (None, None, None)),  # not told from zero
        ((0.8,), (0.7,), 0.9, 0.01, (None, None, None)),
        ((0.8, 0.8), (0.7, 0.7), 0.8, 0.0, (1.0, 1.0, 1.0)),  # nothing varies
        ((0.7, 0.7), (0.7, 0.7), 0.7, 0.0, (None, None, None)),
    ],
)
def test_the_edges_of_a_share(
    variant: tuple[float, ...],
    study: tuple[float, ...],
    value: float,
    std: float | None,
    expected: tuple[float | None, ...],
) -> None:
    target = shares.Target(value, std, 5)
    found, ends = shares.share(seeds(*variant), seeds(*study), target)
    assert (found, *ends) == pytest.approx(expected)


def test_a_planted_truth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of the data sets of the benchmark, whose bounds are closer."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import planted_ledger

    for printed in (True, False):
        found = planted_ledger.counts(60, 1, 0.12, printed)
        assert found["named"] >= 54
        assert 52 <= found["covered"] <= 60
        assert found["wrong"] <= 8
