"""The verdicts on published claims, from made-up results."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builders
import many_methods
from peft_study.files import read_record, write_json
from peft_study.findings.claims import claims, load_claims
from peft_study.findings.claims.rules import RULES, unlearned_on
from peft_study.findings.results import Claim
from peft_study.findings.statistics import summarise
from peft_study.findings.wording import MINUS
from peft_study.records.costs import (
    Batch,
    EnergySource,
    IsoAccuracy,
    Parity,
    Profile,
    Ratio,
    Recipe,
    TaskProfile,
)
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
NEAR_1, HALF = Ratio(1.0, 0.99, 1.01), Ratio(0.5, 0.48, 0.52)


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


def memory(
    *shares: tuple[Ratio, Ratio], kind: str = "mean", rank: int = 8, **machine: Any
) -> Profile:
    """Return a profile, a task for each pair of shares of full fine-tuning's memory.

    LoRA takes so much as measured, and beyond the libraries; a tenth of what is not of `kind`.
    """
    tasks = []
    for task, (measured, beyond) in zip(MAIN_METRICS, shares, strict=False):
        lora, full_ft = builders.memory(Recipe("lora", rank), 5e8, 4e8), Recipe("full_ft")
        decoy, place = Ratio(0.1, 0.1, 0.1), ("peak", "mean").index(kind)
        lora = replace(
            lora,
            as_measured=builders.use(5e8, 4e8, *(measured, decoy, measured)[place:][:2]),
            beyond_libraries=builders.use(3e8, 2e8, *(beyond, decoy, beyond)[place:][:2]),
        )
        rows = lora, builders.memory(full_ft, 9e8, 8e8)
        tasks.append(builders.task_profile(task, memory=rows))
    return builders.profile(*tasks, machine=builders.machine(**machine))


def latency(
    recipe: Recipe, one: Ratio, whole: Ratio, copy: Ratio = NEAR_1, task: str = "sst2"
) -> TaskProfile:
    """Return the latencies of a model, and of a second copy of the one without adapters."""
    decoy = Ratio(0.2, 0.1, 0.3)
    plain = builders.latency(replace(recipe, merged=not recipe.merged), decoy, decoy)
    second = builders.latency(Recipe(), copy, NEAR_1)
    rows = plain, builders.latency(recipe, one, whole)
    return builders.task_profile(task, inference=rows, second_copy=second)


def steps(*ratios: Ratio, rank: int = 8, task: str = "sst2") -> TaskProfile:
    """Return steps of LoRA and full fine-tuning, by their ratios, and of LoRA at another rank."""
    recipes = (Recipe("lora", rank), Recipe("full_ft"))
    rows = [builders.step(*row) for row in zip(recipes, ratios, strict=False)]
    rows.append(builders.step(Recipe("lora", 64), Ratio(0.9, 0.9, 0.9)))
    batches = {"lora": Batch(16, 1), "adapter_h": Batch(8, 1), "full_ft": Batch(32, 4)}
    return builders.task_profile(task, training=tuple(rows), batches=batches)


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
    (task,) = memory((HALF, HALF)).tasks
    profile = builders.profile(replace(task, memory=task.memory[:1]))
    found = judge("memory_38_percent_lower", profile=profile)
    assert found.verdict == "not measured"
    assert "full fine-tuning" in found.finding
    relative_to_lora = builders.profile(steps(Ratio(1.0, 1.0, 1.0)))
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


@verdicts(supported=[294_912, 436_000], contradicted=[439_000])
def test_parameters_are_judged_on_the_sources_model(given: int, verdict: str) -> None:
    settings = {"a": Recipe("lora", 8, ("query", "value")), "b": Recipe("full_ft")}
    there = {"a": Counts(given, 1, 1), "b": Counts(1, 1, 124_647_170)}
    parity = Parity("minilm", 1e-5, settings, {"roberta-base": there}, ())
    counts = {"lora": Counts(3501, 10**6, 0), "full_ft": Counts(999_000, 1000, 10**6)}
    cells = {(m, "sst2"): builders.cell(m, "sst2", trainable=n) for m, n in counts.items()}
    found = judge("fewer_parameters_99_7", cells=cells, parity=parity)
    assert found.verdict == verdict  # though the study's own model has it otherwise
    assert found.finding.startswith(f"On RoBERTa-base {given:,} instead of 124,647,170, 99.")
    assert ("99.763% fewer" in found.finding) == (given == 294_912)
    assert "3,501 instead of 1,000,000, 99.649% fewer" in found.finding  # never rounded up
    assert found.differs is None
    assert judge("fewer_parameters_99_7", parity=parity).verdict == verdict
    assert judge("fewer_parameters_99_7", cells=cells).verdict == "not measured"


@verdicts(
    supported=[(Ratio(1.01, 0.98, 1.04), Ratio(0.98, 0.96, 1.0), NEAR_1)],
    contradicted=[
        (Ratio(1.08, 1.06, 1.1), NEAR_1, NEAR_1),
        (NEAR_1, Ratio(1.08, 1.051, 1.2), NEAR_1),
    ],
    inconclusive=[
        (NEAR_1, Ratio(1.0, None, None), NEAR_1),
        (NEAR_1, Ratio(1.01, 0.99, 1.06), NEAR_1),
        (Ratio(1.04, 1.01, 1.06), NEAR_1, NEAR_1),  # an overhead, but perhaps within the margin
        (Ratio(0.92, 0.90, 0.94), NEAR_1, NEAR_1),  # cannot be
        # Where two copies of one model differ as much, the measurement is at fault.
        (Ratio(1.08, 1.06, 1.1), NEAR_1, Ratio(1.08, 1.06, 1.1)),
        (NEAR_1, NEAR_1, Ratio(1.01, 0.99, 1.06)),
    ],
)
def test_merged_lora_has_no_overhead_where_intervals_lie_within_5_percent(
    given: tuple[Ratio, Ratio, Ratio], verdict: str
) -> None:
    profile = builders.profile(latency(Recipe("lora", 8, merged=True), *given))
    found = judge("no_overhead_when_merged", profile=profile)
    assert found.verdict == verdict
    assert "sst2, validation set," in found.finding
    one, _, copy = given
    assert f"one by one, {copy.value:.3f}" in found.finding.partition("A second copy of")[2]
    if one.high == 1.06:
        # Half of the logarithm's interval is 0.0241, its distance to that of 1.05 0.0096.
        assert str(found.settles).startswith("About 77 rounds")


def test_adapters_of_large_batches_would_not_pass_as_merged() -> None:
    """What they add to batches of 64, 4 to 12%, is no absence of overhead."""
    merged = Recipe("lora", 8, merged=True)
    like_adapters = builders.profile(latency(merged, NEAR_1, Ratio(1.08, 1.04, 1.12)))
    assert judge("no_overhead_when_merged", profile=like_adapters).verdict != "supported"


@verdicts(
    supported=[(Ratio(1.2, 1.03, 1.3), NEAR_1)],
    inconclusive=[
        (Ratio(1.2, 0.99, 1.3), NEAR_1),
        (Ratio(1.2, None, None), Ratio(1.0, None, None)),
        (Ratio(1.05, 1.03, 1.07), Ratio(1.02, 1.0, 1.04)),  # two copies differ as much
    ],
    contradicted=[(Ratio(0.9, 0.8, 0.99), NEAR_1)],
)
def test_adapters_add_latency_one_by_one(given: tuple[Ratio, Ratio], verdict: str) -> None:
    one, copy = given
    task = latency(Recipe("adapter_h"), one, Ratio(0.6, 0.5, 0.7), copy)
    found = judge("adapters_add_latency", profile=builders.profile(task))
    assert found.verdict == verdict
    assert "Quadro" in str(found.differs)
    assert judge("adapters_add_latency", profile=builders.profile()).verdict == "not measured"


@pytest.mark.parametrize(
    ("measured", "beyond", "thirty_eight", "two_thirds"),
    [
        (Ratio(0.30, 0.28, 0.32), Ratio(0.30, 0.28, 0.32), "supported", "supported"),
        (HALF, HALF, "supported", "inconclusive"),
        (Ratio(0.76, 0.75, 0.77), HALF, "inconclusive", "inconclusive"),  # they disagree
        (Ratio(0.60, 0.55, 0.65), HALF, "inconclusive", "inconclusive"),
        (HALF, Ratio(0.5, None, None), "inconclusive", "inconclusive"),
        (Ratio(0.76, 0.75, 0.77), Ratio(0.7, 0.65, 0.75), "contradicted", "inconclusive"),
        (Ratio(1.1, 1.05, 1.2), Ratio(1.2, 1.1, 1.3), "contradicted", "contradicted"),
    ],
)
def test_memory_is_told_both_ways_and_both_must_agree_without_a_gpu(
    measured: Ratio, beyond: Ratio, thirty_eight: str, two_thirds: str
) -> None:
    found = judge("memory_38_percent_lower", profile=memory((measured, beyond)))
    assert found.verdict == thirty_eight
    for said in ("as measured, of the whole process", "only imports the libraries", "4 processes"):
        assert said in found.finding
    assert ("do not agree" in found.finding) == (thirty_eight == "inconclusive")
    peak = memory((measured, beyond), kind="peak")
    assert judge("memory_two_thirds_lower", profile=peak).verdict == two_thirds


def test_on_a_gpu_what_nvml_says_is_compared_and_what_pytorch_says_stands_beside() -> None:
    nvml, pytorch = Ratio(0.76, 0.75, 0.77), HALF
    found = judge("memory_38_percent_lower", profile=memory((nvml, pytorch), gpu="A GPU"))
    assert found.verdict == "contradicted"
    assert "by NVML, 24.0% lower (95% interval 23.0 to 25.0)" in found.finding
    assert "as allocated by PyTorch, 50.0% lower (95% interval 48.0 to 52.0)" in found.finding


def test_memory_is_averaged_over_the_tasks_as_in_the_source() -> None:
    shares = Ratio(0.5, 0.47, 0.53), Ratio(0.7, 0.66, 0.74)  # 40% less on average
    found = judge("memory_38_percent_lower", profile=memory(*((r, r) for r in shares)))
    # Half of the interval is the root of 3^2 + 4^2, over two tasks.
    assert "40.0% lower (95% interval 37.5 to 42.5)" in found.finding
    assert found.verdict == "inconclusive"
    assert "on sst2, stsb" in found.finding


@verdicts(
    supported=[Ratio(0.55, 0.50, 0.59), Ratio(0.25, 0.20, 0.30)],
    inconclusive=[Ratio(0.55, 0.50, 0.66), Ratio(0.55, None, None)],
    contradicted=[Ratio(0.68, 0.66, 0.70)],
)
def test_epochs_are_faster_by_the_interval(given: Ratio, verdict: str) -> None:
    busy = builders.machine(other_cpu_share=0.2)
    profile = builders.profile(steps(given, Ratio(1.0, 1.0, 1.0)), machine=busy)
    found = judge("epochs_40_to_48_percent_faster", profile=profile)
    assert found.verdict == verdict
    assert "batches of 16 (LoRA (ours)), 32 in 4 pieces (Full fine-tuning)" in found.finding
    assert "other programs used 20% of the processors" in found.finding
    if verdict == "contradicted":
        assert "30% to 34% less" in found.finding


def test_costs_are_judged_on_all_tasks_of_the_profile() -> None:
    merged = Recipe("lora", 8, merged=True)
    fast, slow, one = Ratio(0.5, 0.4, 0.6), Ratio(0.7, 0.66, 0.8), Ratio(1.0, 1.0, 1.0)
    for name, good, bad in (
        ("no_overhead_when_merged", NEAR_1, Ratio(1.1, 1.06, 1.2)),
        ("epochs_40_to_48_percent_faster", fast, slow),
    ):
        for second, verdict in ((good, "supported"), (bad, "contradicted")):
            tasks = [
                replace(
                    latency(merged, NEAR_1, ratio, task=task),
                    training=steps(ratio, one).training,
                    batches=steps().batches,
                )
                for task, ratio in (("sst2", good), ("stsb", second))
            ]
            found = judge(name, profile=builders.profile(*tasks))
            assert found.verdict == verdict
            assert "stsb, " in found.finding


@pytest.mark.parametrize("rank", [8, 4])
def test_a_cost_says_where_it_is_of_another_recipe_than_the_studys(rank: int) -> None:
    merged = Recipe("lora", rank, ("value", "query"), merged=True)
    for name, profile in (
        ("memory_38_percent_lower", memory((HALF, HALF), rank=rank)),
        ("epochs_40_to_48_percent_faster", builders.profile(steps(NEAR_1, NEAR_1, rank=rank))),
        ("no_overhead_when_merged", builders.profile(latency(merged, NEAR_1, NEAR_1))),
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


def test_methods_are_found_by_role_not_by_name() -> None:
    names = {"lora": "mine", "loralib_lora": "theirs", "full_ft": "everything"}
    renamed = {m.name: replace(m, name=names.get(m.name, m.name)) for m in STUDY.methods}
    library = many_methods.recipe("bn", "Houlsby", "adapter", "adapters_library")
    renamed["adapter_h"] = replace(library, settings={"config": "double_seq_bn[mh_adapter=True]"})
    study = replace(STUDY, methods=tuple(renamed.values()))
    assert [study.role(kind) for kind in METHODS] == ["mine", "theirs", "bn", "everything"]
    rows = differences((-0.01, 0.01), (0.0, 0.01)).differences
    # As a study has them that declares full fine-tuning first.
    turned = [replace(r.reversed(), method="everything", reference="mine") for r in rows]
    other = [replace(row, method="mine", reference="theirs", family="pairs") for row in rows]
    steps_of = steps(HALF, NEAR_1)
    training = tuple(
        replace(of, recipe=replace(of.recipe, method=names[str(of.recipe.method)]))
        for of in steps_of.training
    )
    task = replace(
        steps_of, training=training, batches=dict.fromkeys(("mine", "everything"), Batch(16, 1))
    )
    fast = latency(Recipe("mine", merged=True), NEAR_1, NEAR_1)
    slow = latency(Recipe("bn"), Ratio(1.3, 1.2, 1.4), NEAR_1)
    task = replace(task, inference=(*fast.inference, *slow.inference))
    results = builders.results(
        study,
        statistics=builders.statistics(differences=(*turned, *other)),
        profile=builders.profile(task),
    )
    found = {claim.id: claim.verdict for claim in claims(results)}
    assert found["lora_within_2_percent"] == "supported"
    assert found["ours_within_1_1_points_of_loralib"] == "supported"
    assert found["epochs_40_to_48_percent_faster"] == "supported"
    assert found["no_overhead_when_merged"] == "supported"
    assert found["adapters_add_latency"] == "supported"


def test_of_several_in_a_role_the_built_in_goes_first() -> None:
    own = many_methods.recipe("own", "Own", "lora", "lora")
    assert replace(STUDY, methods=(*STUDY.methods, own)).role("lora") == "lora"
    second = replace(own, name="second")
    assert replace(STUDY, methods=(own, second)).role("lora") == "own"
    # A study without one speaks of the method of the table.
    assert replace(STUDY, methods=()).role("full_ft") == "full_ft"
