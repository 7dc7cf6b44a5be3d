"""The printed numbers: what each starts from, and that they agree with their sources."""

import csv
import statistics

import pytest

from conftest import ROOT
from peft_study.findings.printed import SCORES, printed_rows

SCRIPTS = ROOT.parent / "shared/reference/hyperparameters.csv"
REFERENCE = ROOT.parent / "shared/reference/published.csv"
SOURCES = {"000": "chu", "001": "liu", "003": "keyquery", "004": "tiny"}


def test_every_trained_cell_says_what_it_starts_from() -> None:
    """A cost and a count start from nothing, and of averages each cell by itself."""
    for row in printed_rows():
        scored = row.metric.startswith(("cv", "share", "iso")) or row.metric in SCORES
        assert (row.start != "") == scored
        started = (row.source, row.table, row.method) == ("hu2021", "2", "lora")
        started |= (row.model, row.method) == ("deberta-v2-xxlarge", "full_ft")  # as its authors
        if scored:
            assert (row.start == "mnli") == (started and row.task in ("mrpc", "rte", "stsb")), row


def test_the_papers_cells_start_as_the_authors_scripts_do() -> None:
    if not SCRIPTS.is_file():
        pytest.skip(f"{SCRIPTS} is not there: the table of the LoRA authors' scripts")
    with SCRIPTS.open(encoding="utf-8", newline="") as file:
        scripts = list(csv.DictReader(file))
    of = ("hu2021", "2", "lora")
    rows = [row for row in printed_rows() if (row.source, row.table, row.method) == of]
    starts = {(row.model, row.task): row.start for row in rows}
    for script in scripts:
        if script["method"] == "lora":
            said = {"yes": "mnli", "no": "encoder"}[script["starts_from_mnli"]]
            assert starts[script["model"], script["task"]] == said


def test_the_rows_are_those_of_the_reference() -> None:
    """What is there and not here, or here with another number, is a mistake of one of the two."""
    if not REFERENCE.is_file():
        pytest.skip(f"{REFERENCE} is not there: the table of published results")
    keys = ("table", "model", "method", "weights", "rank", "task", "metric")
    here = {
        (row.source, row.trainable_params_m, *(getattr(row, key) for key in keys)): row
        for row in printed_rows()
    }
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            source = SOURCES.get(row["source"][:3], row["source"])
            own = here[source, row["trainable_params_m"], *(row[key] for key in keys)]
            assert own.value == row["value"]
            assert own.std == row["std"] or (not row["std"] and own.table == "6")


def test_averages_are_those_of_the_eight_printed_scores() -> None:
    rows = [row for row in printed_rows() if row.table == "2" and row.source == "hu2021"]
    sizes = {(row.model, row.method, row.trainable_params_m) for row in rows}
    assert len(sizes) == 14
    for of in sizes:
        own = [r for r in rows if (r.model, r.method, r.trainable_params_m) == of]
        values = [float(row.value) for row in own if row.metric in SCORES]
        (average,) = (float(row.value) for row in own if row.metric == "average")
        assert len(values) == 8
        # Half a step, as printed numbers are rounded: 89.05 is printed as 89.0.
        assert abs(statistics.fmean(values) - average) <= 0.0501


def test_contradictions_inside_a_source_are_noted() -> None:
    """With the arithmetic that the notes claim."""
    rows = printed_rows()

    def value(**wanted: str) -> float:
        (row,) = (r for r in rows if wanted.items() <= vars(r).items())
        return float(row.value)

    def noted(text: str, **wanted: str) -> bool:
        return all(text in r.note for r in rows if wanted.items() <= vars(r).items())

    lora: dict[str, str] = {"source": "liu", "method": "lora"}
    seconds = {"source": "liu", "metric": "seconds_per_epoch"}
    took, full = (value(**seconds, method=name) for name in ("lora", "full_ft"))
    assert round(100 * (1 - took / full), 1) == 47.1
    assert noted("47.1 %", **lora, metric="time_saved_percent")
    for method, printed, share in (
        ("lora", 0.008 / 0.91, "0.88"),
        ("adapter_h", 0.014 / 0.82, "1.71"),
    ):
        assert f"{100 * printed:.2f}" == share
        assert noted(share, source="liu", method=method, metric="cv_last_epoch_percent")
    for method in ("full_ft", "lora"):
        for task in ("sst2", "mrpc", "cola", "rte", "stsb"):
            of = {"source": "tiny", "table": "5/6", "method": method, "task": task}
            watts, took = (value(**of, metric=m) for m in ("power_mean_w", "iso_accuracy_seconds"))
            kilojoules = value(**of, metric="iso_accuracy_energy_kj")
            assert watts * took / 1e3 / kilojoules == pytest.approx(1.10, abs=0.011)
            assert noted("1.1 times", **of, metric="iso_accuracy_energy_kj")
