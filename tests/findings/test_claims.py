"""The verdicts on published claims, from made-up results."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builders
from peft_study.files import read_record, write_json
from peft_study.findings.claims import claims, load_claims
from peft_study.findings.claims.rules import RULES, unlearned_on
from peft_study.findings.results import Claim
from peft_study.findings.statistics import summarise
from peft_study.findings.wording import MINUS
from peft_study.records.costs import EnergySource, IsoAccuracy, Parity, Profile, Ratio, Recipe
from peft_study.records.scores import (
    Counts,
    EqualScoreRun,
    Gap,
    StabilityPoint,
    Statistics,
    Unlearned,
)
from peft_study.records.study import InitInfo, ModelInfo, SweepInfo

IDS = [
    *("lora_within_2_percent", "fewer_parameters_99_7", "ours_within_1_1_points_of_loralib"),
    *("no_overhead_when_merged", "adapters_add_latency", "memory_38_percent_lower"),
    *("memory_two_thirds_lower", "epochs_40_to_48_percent_faster", "energy_not_lower"),
    *("rank_1_within_1_point", "query_value_as_good_as_all_four"),
    *("value_output_better_than_query_key", "more_stable_than_adapters_in_first_epoch"),
    "mnli_init_helps_rte_most",
]
METHODS = ("lora", "loralib_lora", "adapter_h", "full_ft")
MAIN_METRICS = {"sst2": "accuracy", "stsb": "pearson"}
STUDY = builders.study(
    METHODS,
    MAIN_METRICS,
    model=ModelInfo("FacebookAI/roberta-base", None, 64),
    mnli_init=InitInfo("per_method", "mnli", ("stsb",)),
    sweep=SweepInfo("sst2", (), ()),
)

Interval = tuple[float | None, float | None]
NEAR_1 = Ratio(1.0, 0.99, 1.01)


def verdicts(**cases: list[Any]) -> pytest.MarkDecorator:
    """Parametrise a test by what is given and the verdict on it, such as `not_measured`."""
    rows = [(given, name.replace("_", " ")) for name, rows in cases.items() for given in rows]
    return pytest.mark.parametrize(("given", "verdict"), rows)


def judge(name: str, **parts: Any) -> Claim:
    """Return the verdict on one claim."""
    found = {claim.id: claim for claim in claims(builders.results(STUDY, **parts))}[name]
    open_to = found.verdict in ("inconclusive", "not measured")
    assert open_to or found.verdict in ("supported", "contradicted")
    assert open_to == (found.settles is not None)
    return found


def differences(
    *intervals: Interval, reference: str = "full_ft", gaps: tuple[tuple[str, str], ...] = ()
) -> Statistics:
    """Return statistics: LoRA minus `reference` on sst2 and stsb, by their intervals."""
    rows = []
    for (task, metric), (low, high) in zip(MAIN_METRICS.items(), intervals, strict=False):
        about: dict[str, Any] = {"metric": metric, "reference": reference}
        about["n"] = 1 if low is None else 3
        # What is not the reported evaluation, or not the main metric, must not count.
        rows += [
            builders.difference(task, low, high, **about),
            builders.difference(task, -0.9, -0.8, **about | {"evaluation": "last"}),
            builders.difference(task, -0.9, -0.8, **about | {"metric": "f1"}),
        ]
    named = tuple(Gap(method, task, "no results") for method, task in gaps)
    return builders.statistics(gaps=named, differences=tuple(rows))


def memory(peak: float, mean: float, libraries: int = 500, rank: int = 8) -> Profile:
    """Return a profile in which LoRA takes these shares of full fine-tuning's 1000 bytes."""
    rows = (
        builders.memory(Recipe(name, r), libraries + int(1000 * p), libraries + 1000 * m, libraries)
        for name, r, p, m in (("lora", rank, peak, mean), ("full_ft", None, 1, 1))
    )
    return builders.profile("sst2", memory=tuple(rows))


def latency(recipe: Recipe, one: Ratio, many: Ratio) -> Profile:
    decoy = Ratio(0.2, 0.1, 0.3)
    plain = builders.latency(replace(recipe, merged=not recipe.merged), decoy, decoy)
    return builders.profile("sst2", inference=(plain, builders.latency(recipe, one, many)))


def steps(*ratios: Ratio, rank: int = 8) -> Profile:
    """Return a profile of these steps of LoRA and full fine-tuning, and of LoRA at another rank."""
    recipes = (Recipe("lora", rank), Recipe("full_ft"))
    rows = [builders.step(*row) for row in zip(recipes, ratios, strict=False)]
    rows.append(builders.step(Recipe("lora", 64), Ratio(0.9, 0.9, 0.9)))
    busy = builders.machine(other_cpu_share=0.2)
    return builders.profile("sst2", training=tuple(rows), machine=busy)


def swept(scores: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """Return a study of a sweep and its cells: scores by weights and rank, none where none are."""
    by_cell = {(tuple(names.split("+")), rank): found for (names, rank), found in scores.items()}
    weights = tuple(dict.fromkeys(names for names, _ in by_cell))
    ranks = tuple(dict.fromkeys(rank for _, rank in by_cell))
    cells = [
        builders.cell("lora", "sst2", *found, weights=names, rank=rank)
        for (names, rank), found in by_cell.items()
        if found
    ]
    study = replace(STUDY, sweep=SweepInfo("sst2", ranks, weights))
    found = summarise(study, {}, (), cells, builders.values)
    return {"study": study, "statistics": found}


def test_every_claim_has_a_rule_and_all_its_words() -> None:
    entries = load_claims()
    assert sorted(entry.id for entry in entries) == sorted(IDS) == sorted(RULES)
    for entry in entries:
        words = ("source", "statement", "quantity", "supports", "contradicts", "settles")
        assert all(getattr(entry, key).strip() for key in words), entry
        assert set(entry.claimed_on) == {"models", "tasks", "hardware"}


def test_without_any_results_nothing_is_measured(tmp_path: Path) -> None:
    found = claims(builders.results(STUDY))
    assert [claim.id for claim in found] == [entry.id for entry in load_claims()]
    assert {claim.verdict for claim in found} == {"not measured"}
    assert all(claim.finding.endswith(".") and claim.settles for claim in found)
    write_json(tmp_path / "claims.json", found)
    assert read_record(tmp_path / "claims.json", list[Claim]) == found
    swept_alone = swept({("query", 1): [], ("query", 8): []})
    alone = builders.results(replace(swept_alone["study"], methods=()))
    assert {claim.verdict for claim in claims(alone)} == {"not measured"}


@verdicts(
    supported=[
        [(-0.019, 0.03), (-0.01, 0.0)],
        [(-0.019, 0.03), (0.05, 0.09)],  # better by far is no contradiction
    ],
    inconclusive=[[(-0.021, 0.03), (-0.01, 0.0)], [(None, None), (-0.01, 0.0)]],
    contradicted=[[(-0.09, -0.021), (-0.01, 0.0)], [(None, None), (-0.09, -0.05)]],
)
def test_lora_is_within_two_points_where_every_interval_is(
    given: list[Interval], verdict: str
) -> None:
    found = judge("lora_within_2_percent", statistics=differences(*given))
    assert (found.verdict, found.files) == (verdict, ("metrics/statistics.json",))


def test_the_reported_evaluation_is_judged() -> None:
    last = replace(STUDY, report="last")
    close = differences((-0.01, 0.01), (-0.01, 0.01))
    assert judge("lora_within_2_percent", statistics=close).verdict == "supported"
    assert judge("lora_within_2_percent", statistics=close, study=last).verdict == "contradicted"


def test_the_finding_has_the_figures_and_the_seeds_that_would_decide() -> None:
    found = judge("lora_within_2_percent", statistics=differences((-0.03, 0.01), (-0.01, 0.01)))
    assert f"sst2 {MINUS}1.00 points (95% interval {MINUS}3.00 to +1.00, n = 3)" in found.finding
    # Half of the interval is 2 points, its distance to -2 is 1: with five seeds t(4) = 2.776 in
    # the place of t(2) = 4.303 makes it 1.
    assert str(found.settles).startswith("About 5 seeds, if means and spreads")
    one = judge("lora_within_2_percent", statistics=differences((None, None), (None, None)))
    assert one.verdict == "inconclusive"
    assert "no interval, n = 1" in one.finding
    assert str(one.settles).startswith("Two seeds or more")
    found = judge("lora_within_2_percent", statistics=differences((-0.065, 0.005), (-0.019, 0.0)))
    # sst2 lies 1 point outside, half of its interval is 3.5 points: t(10) is half of t(2).
    assert str(found.settles).startswith("About 11 seeds")


def test_a_cell_of_the_sweep_that_has_not_learned_does_not_silence_the_method() -> None:
    swept = Unlearned("lora", "sst2", ("1",), whole=True, weights=("query",), rank=1)
    said = [
        unlearned_on(
            builders.results(STUDY, statistics=builders.statistics(unlearned=(row,))),
            "sst2",
            METHODS,
        )
        for row in (swept, replace(swept, weights=(), rank=None))
    ]
    assert said == ["", "LoRA (ours) has not learned"]


def test_a_gap_is_named_and_leaves_the_claim_open() -> None:
    gap = (("lora", "stsb"), ("adapter_h", "sst2"))
    found = judge("lora_within_2_percent", statistics=differences((-0.01, 0.01), gaps=gap))
    assert found.verdict == "inconclusive"
    assert "stsb, LoRA (ours): no results" in found.finding
    assert "AdapterH" not in found.finding
    worse = differences((-0.09, -0.05), gaps=gap)
    assert judge("lora_within_2_percent", statistics=worse).verdict == "contradicted"
    # Methods bear the study's labels.
    study = replace(STUDY, methods=(replace(STUDY.methods[0], label="Our"), *STUDY.methods[1:]))
    none = judge("lora_within_2_percent", statistics=differences(gaps=gap), study=study)
    assert none.verdict == "not measured"
    assert "stsb, Our: no results" in none.finding


def test_without_full_fine_tuning_nothing_is_compared_with_it() -> None:
    study = replace(STUDY, methods=(builders.method("lora"),))
    found = judge("lora_within_2_percent", study=study)
    assert found.finding == "The study has no full fine-tuning."
    profile = replace(memory(0.5, 0.5), memory=memory(0.5, 0.5).memory[:1])
    found = judge("memory_38_percent_lower", profile=profile)
    assert found.verdict == "not measured"
    assert "full fine-tuning" in found.finding
    relative_to_lora = steps(Ratio(1.0, 1.0, 1.0))
    found = judge("epochs_40_to_48_percent_faster", profile=relative_to_lora)
    assert found.verdict == "not measured"


@verdicts(
    supported=[(-0.010, 0.010)],
    inconclusive=[(-0.010, 0.012), (-0.012, 0.010)],
    contradicted=[(0.012, 0.03), (-0.03, -0.012)],
    not_measured=[None],
)
def test_ours_is_within_points_of_loralib_either_way(given: Interval | None, verdict: str) -> None:
    statistics = differences(*([given, (0.0, 0.0)] if given else []), reference="loralib_lora")
    found = judge("ours_within_1_1_points_of_loralib", statistics=statistics)
    assert found.verdict == verdict


@verdicts(supported=[3000, 3499], contradicted=[3501])
def test_parameters_are_counted_here_and_of_the_sources_model(given: int, verdict: str) -> None:
    counts = {"lora": Counts(given, 10**6, 0), "full_ft": Counts(999_000, 1000, 10**6)}
    cells = {(m, "sst2"): builders.cell(m, "sst2", trainable=n) for m, n in counts.items()}
    found = judge("fewer_parameters_99_7", cells=cells)
    assert found.verdict == verdict
    assert found.finding.startswith(f"{given:,} instead of 1,000,000, ")
    assert ("99.649%" in found.finding) == (given == 3501)  # never rounded up
    assert found.differs is None
    settings = {"a": Recipe("lora", 8, ("query", "value")), "b": Recipe("full_ft")}
    there = {"a": Counts(294_912, 1, 1), "b": Counts(1, 1, 124_647_170)}
    parity = Parity("minilm", 1e-5, settings, {"roberta-base": there}, ())
    found = judge("fewer_parameters_99_7", cells=cells, parity=parity)
    assert "99.763% fewer" in found.finding
    assert found.verdict == verdict  # of the study's own model
    del cells["full_ft", "sst2"]
    assert judge("fewer_parameters_99_7", cells=cells).verdict == "not measured"


@verdicts(
    supported=[(Ratio(1.01, 0.95, 1.05), NEAR_1)],
    contradicted=[
        (Ratio(1.02, 1.01, 1.05), NEAR_1),
        (Ratio(1.01, 0.95, 1.05), Ratio(1.1, 1.001, 1.2)),
    ],
    inconclusive=[
        (Ratio(1.01, 0.95, 1.05), Ratio(1.0, None, None)),
        (Ratio(0.95, 0.90, 0.99), NEAR_1),  # cannot be
        (Ratio(1.01, 0.80, 1.25), NEAR_1),  # adapters have as much
    ],
)
def test_merged_lora_has_no_overhead_where_intervals_hold_1(
    given: tuple[Ratio, Ratio], verdict: str
) -> None:
    profile = latency(Recipe("lora", 8, merged=True), *given)
    found = judge("no_overhead_when_merged", profile=profile)
    assert found.verdict == verdict
    if verdict == "supported":
        assert "0.100 wide" in found.finding
        assert "up to 5% is not excluded" in found.finding


@verdicts(
    supported=[Ratio(1.2, 1.01, 1.3)],
    inconclusive=[Ratio(1.2, 0.99, 1.3), Ratio(1.2, None, None)],
    contradicted=[Ratio(0.9, 0.8, 0.99)],
)
def test_adapters_add_latency_one_by_one(given: Ratio, verdict: str) -> None:
    profile = latency(Recipe("adapter_h"), given, Ratio(0.6, 0.5, 0.7))
    found = judge("adapters_add_latency", profile=profile)
    assert found.verdict == verdict
    assert "Quadro" in str(found.differs)
    assert judge("adapters_add_latency", profile=builders.profile()).verdict == "not measured"


@pytest.mark.parametrize(
    ("peak", "mean", "thirty_eight", "two_thirds"),
    [
        (0.30, 0.30, "supported", "supported"),
        (0.50, 0.60, "supported", "inconclusive"),
        (0.50, 0.65, "inconclusive", "inconclusive"),
        (0.70, 0.65, "contradicted", "inconclusive"),
        (1.10, 1.05, "contradicted", "contradicted"),
    ],
)
@pytest.mark.parametrize("libraries", [0, 500, 10**6])
def test_memory_is_compared_without_the_libraries(
    peak: float, mean: float, thirty_eight: str, two_thirds: str, libraries: int
) -> None:
    profile = memory(peak, mean, libraries)
    assert judge("memory_38_percent_lower", profile=profile).verdict == thirty_eight
    found = judge("memory_two_thirds_lower", profile=profile)
    assert found.verdict == two_thirds
    assert ("without the libraries'" in found.finding) == (libraries > 0)
    assert "single measurements" in found.finding


@verdicts(
    supported=[Ratio(0.55, 0.50, 0.59), Ratio(0.25, 0.20, 0.30)],
    inconclusive=[Ratio(0.55, 0.50, 0.66), Ratio(0.55, None, None)],
    contradicted=[Ratio(0.68, 0.66, 0.70)],
)
def test_epochs_are_faster_by_the_interval(given: Ratio, verdict: str) -> None:
    profile = steps(given, Ratio(1.0, 1.0, 1.0))
    found = judge("epochs_40_to_48_percent_faster", profile=profile)
    assert found.verdict == verdict
    assert "other programs used 20% of the processors" in found.finding
    if verdict == "contradicted":
        assert "30% to 34% less" in found.finding


@pytest.mark.parametrize("rank", [8, 4])
def test_a_cost_says_where_it_is_of_another_recipe_than_the_studys(rank: int) -> None:
    merged = Recipe("lora", rank, ("value", "query"), merged=True)
    for name, profile in (
        ("memory_38_percent_lower", memory(0.5, 0.5, rank=rank)),
        ("epochs_40_to_48_percent_faster", steps(NEAR_1, NEAR_1, rank=rank)),
        ("no_overhead_when_merged", latency(merged, NEAR_1, NEAR_1)),
    ):
        finding = judge(name, profile=profile).finding
        assert (", measured with r = 4" in finding) == (rank == 4)
        assert finding.count("measured with") == (rank == 4)


def joules(
    ours: list[float | None], theirs: list[float | None], source: str | None = "RAPL"
) -> IsoAccuracy:
    """Return `metrics/iso_accuracy.json` with these joules by seed."""
    runs = tuple(
        EqualScoreRun("sst2", method, seed, 0.9, value is not None, 1, 1.0, 1.0, value)
        for method, values in (("lora", ours), ("full_ft", theirs))
        for seed, value in enumerate(values, 1)
    )
    return IsoAccuracy(0.005, EnergySource(source, "no meter can be read."), runs, ())


@verdicts(
    supported=[[200.0, 210.0, 190.0]],
    contradicted=[[50.0, 60.0, 40.0]],
    inconclusive=[[90.0, 100.0, 125.0], [200.0, None, 190.0], [200.0]],
)
def test_energy_is_compared_to_an_equal_score(given: list[float | None], verdict: str) -> None:
    found = judge("energy_not_lower", iso_accuracy=joules(given, [100.0, 101.0, 99.0]))
    assert found.verdict == verdict
    assert "RAPL" in found.finding
    if None in given:
        assert "LoRA (ours), seed 2: score never reached" in found.finding


def test_energy_that_is_not_measured_decides_nothing() -> None:
    estimated = joules([200.0, 210.0, 190.0], [100.0, 101.0, 99.0], "estimate")
    for iso, named in (
        (estimated, "estimate"),
        (joules([], [], None), "no meter can be read"),
        (joules([], []), ""),
    ):
        found = judge("energy_not_lower", iso_accuracy=iso)
        assert found.verdict == "not measured"
        assert named in found.finding


@verdicts(
    supported=[[0.899, 0.902, 0.900]],
    contradicted=[[0.880, 0.884, 0.882]],
    inconclusive=[[0.880, 0.910, 0.895], [0.900]],
)
def test_rank_1_is_compared_with_higher_ranks(given: list[float], verdict: str) -> None:
    high = [0.900, 0.901, 0.901]
    sweep = swept({("query", 1): given, ("query", 4): [0.99] * 3, ("query", 64): high})
    found = judge("rank_1_within_1_point", **sweep)
    assert found.verdict == verdict
    assert "query at rank 1 minus rank 64" in found.finding
    assert "rank 4" not in found.finding


def test_a_sweep_needs_the_ranks_and_weights_of_the_claim() -> None:
    sweep = swept({("query", 2): [0.5], ("query", 4): [0.5]})
    assert {judge(name, **sweep).verdict for name in IDS[9:12]} == {"not measured"}


@verdicts(inconclusive=[([0.90, 0.91, 0.92], "value")], not_measured=[([], "query")])
def test_a_missing_cell_of_the_sweep_is_named(given: tuple[list[float], str], verdict: str) -> None:
    scores, missing = given
    sweep = {("query", 1): scores, ("query", 8): scores, ("value", 1): [], ("value", 8): []}
    found = judge("rank_1_within_1_point", **swept(sweep))
    assert found.verdict == verdict
    assert f"{missing} at rank 1 minus rank 8" in found.finding


@verdicts(
    supported=[[0.899, 0.900, 0.901], [0.950, 0.951, 0.949]],
    contradicted=[[0.890, 0.891, 0.892]],
    inconclusive=[[0.890, 0.901, 0.905]],
)
def test_query_and_value_are_compared_with_all_four(given: list[float], verdict: str) -> None:
    # Weights may stand in any order.
    sweep = {("value+query", 8): given, ("query+key+value+output", 8): [0.899, 0.900, 0.901]}
    found = judge("query_value_as_good_as_all_four", **swept(sweep))
    assert found.verdict == verdict
    assert "on sst2" in found.finding.lower()


@verdicts(
    supported=[[0.85, 0.861, 0.839], [0.86, 0.87, 0.85]],
    contradicted=[[0.75, 0.761, 0.739]],
    inconclusive=[[0.80, 0.811, 0.789], [0.86, 0.87, 0.70]],  # one run's score changes the verdict
)
def test_value_and_output_are_compared_with_query_and_key(given: list[float], verdict: str) -> None:
    sweep = swept({("value+output", 2): given, ("query+key", 2): [0.80, 0.81, 0.79]})
    assert judge("value_output_better_than_query_key", **sweep).verdict == verdict


def variations(ours: float | None, theirs: float | None, n: int = 5) -> tuple[StabilityPoint, ...]:
    """Return `metrics/stability.json`: these of half an epoch and of the first, others later."""
    return tuple(
        StabilityPoint(task, method, int(10 * epoch), epoch, n, 0.8, 0.1, cv)
        for task in MAIN_METRICS
        for method, first, later in (("lora", ours, 0.7), ("adapter_h", theirs, 0.01))
        for epoch, cv in ((0.5, 0.5), (1.0, first), (2.0, later))
    )


@verdicts(
    supported=[(0.0624, 0.5001, 5), (0.10, 0.30, 20)],  # the first is the source's
    inconclusive=[(0.10, 0.30, 5)],  # five seeds need a ratio above 3.1
    contradicted=[(0.50, 0.05, 5)],
    not_measured=[(None, None, 1), (0.0, 0.3, 5)],
)
def test_stability_is_that_of_the_first_epoch(given: tuple[Any, Any, int], verdict: str) -> None:
    found = judge("more_stable_than_adapters_in_first_epoch", stability=variations(*given))
    assert found.verdict == verdict


def test_stability_needs_every_task() -> None:
    rows = tuple(row for row in variations(0.06, 0.5) if row.task == "sst2")
    gaps = builders.statistics(gaps=(Gap("adapter_h", "stsb", "seed 2: no memory"),))
    found = judge("more_stable_than_adapters_in_first_epoch", stability=rows, statistics=gaps)
    assert found.verdict == "inconclusive"
    assert "stsb, AdapterH: seed 2: no memory" in found.finding


def test_one_study_cannot_say_what_its_start_gives() -> None:
    found = judge("mnli_init_helps_rte_most")
    assert found.verdict == "not measured"
    assert "stsb started from mnli" in found.finding
    assert "dvc exp run -S mnli_init.mode=none" in str(found.settles)
    none = replace(STUDY, mnli_init=replace(STUDY.mnli_init, mode="none"))
    found = judge("mnli_init_helps_rte_most", study=none)
    assert "no task started from another" in found.finding


def test_what_differs_from_the_source_is_said() -> None:
    machine = builders.machine(cpu="AMD EPYC")
    study = replace(STUDY, model=ModelInfo("minilm", None, 64))
    statistics = differences((-0.01, 0.01), (-0.01, 0.01))
    profile = builders.profile(machine=machine)
    found = judge("lora_within_2_percent", study=study, statistics=statistics, profile=profile)
    assert found.differs == (
        "Here model minilm (the source: roberta-base); data sst2, stsb (the source: sst2, mrpc, "
        "cola, rte, stsb); hardware AMD EPYC, 2 cores (the source: NVIDIA GeForce RTX 3080 Ti)."
    )
    gpu = replace(profile, machine=replace(machine, gpu="NVIDIA GeForce RTX 3080 Ti"))
    tasks = dict.fromkeys(("sst2", "mrpc", "cola", "rte", "stsb"), "accuracy")
    same = builders.results(replace(STUDY, tasks=builders.study((), tasks).tasks), profile=gpu)
    assert claims(same)[0].differs is None
