"""Figures of made-up results: their rows, their words, their files, and what is missing."""

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_study.findings.figures import Figure, figures, render_svg, write_figures
from peft_study.findings.results import Results

METHODS = ["lora", "peft_lora", "adapter_h", "full_ft"]
MAIN = {"movie_polarity": "accuracy", "tweet_rating": "pearson"}
ALL = [
    *("scores", "parameters", "curves", "stability", "rank_weights", "rank_curves"),
    *("rank_learning_curves", "step_time", "memory", "latency", "equal_scores"),
]
GAP = ("adapter_h", "tweet_rating")


def made_up(seeds: int = 3, gap: bool = False) -> Results:
    """Return results of two tasks and four methods, and of a sweep."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    stability, curves, runs, statistics = [], [], [], []
    for place, (task, metric) in enumerate(MAIN.items()):
        for number, method in enumerate(METHODS):
            if gap and (method, task) == GAP:
                continue
            scores = [0.7 + 0.05 * place + 0.02 * number + 0.01 * seed for seed in range(seeds)]
            one = seeds == 1
            mean = sum(scores) / seeds
            found = {str(s + 1): {metric: v, "epoch": 2.0, "step": 8} for s, v in enumerate(scores)}
            cells[method, task] = {
                "report": "best",
                "trainable": {"adapter": 10 ** (3 + number), "head": 5, "total": 0},
                "seeds": {seed: {"best": run} for seed, run in found.items()},
            }
            same = {"task": task, "method": method}
            low, high = (None, None) if one else (mean - 0.01, mean + 0.01)
            statistics.append(
                {**same, "metric": metric, "evaluation": "best", "n": seeds, "mean": mean}
                | {"low": low, "high": high}
            )
            for epoch in (1.0, 2.0):
                at = {**same, "step": int(4 * epoch), "epoch": epoch, "n": seeds, "mean": mean}
                curves.append(at | {"metric": metric, "low": min(scores), "high": max(scores)})
                stability.append(at | {"std": None, "cv": None if one else 0.02 * epoch})
            for seed in range(seeds):
                reached = (method, seed) != ("adapter_h", 0)
                spent = {"epoch": 1.0 + seed, "seconds": 9.5, "joules": None}
                spent = spent if reached else dict.fromkeys(spent)
                runs.append({**same, "seed": seed + 1, "target": 0.7, "reached": reached} | spent)
    return Results(
        study={
            **{"main_metrics": MAIN, "methods": METHODS, "report": "best"},
            "adapters": {"lora": {"r": 8, "targets": ["query", "value"]}, "full_ft": {}}
            | {"peft_lora": {"r": 8, "targets": ["query", "value"]}}
            | {"adapter_h": {"bottleneck": 16}},
            "sweep": {"task": "movie_polarity", "ranks": [1, 8], "weights": ["query", "key+value"]},
        },
        summary={},
        statistics={
            "cells": statistics,
            "gaps": [dict(zip(("method", "task"), GAP, strict=True))] if gap else [],
        },
        profile=_profile(),
        iso_accuracy={"margin": 0.005, "energy": {"source": None, "reason": "no"}, "runs": runs},
        stability=stability,
        curves=curves,
        sweep=[
            {"task": "movie_polarity", "weights": weights, "rank": rank, "metric": "accuracy"}
            | {"median": 0.7 + rank / 100, "std": 0.01, "n": seeds, "trainable_adapter": 9}
            for weights, rank in (("query", 1), ("query", 8), ("key+value", 1))
        ],
        sweep_curves=[
            {"task": "movie_polarity", "method": name, "metric": "accuracy", "n": seeds}
            | {"step": int(4 * epoch), "epoch": epoch, "mean": 0.7, "low": 0.69, "high": 0.71}
            for name in ("query-r1", "query-r8", "key+value-r1")
            for epoch in (1.0, 2.0)
        ],
        sweep_runs={"query-r1": {"report": "best", "seeds": {"1": {"best": {"accuracy": 0.71}}}}},
        cells=cells,
        parity={},
    )


def _profile() -> dict[str, Any]:
    ratio = {"median": 0.8, "low": None, "high": None}
    seconds = {"forward": 0.1, "backward": 0.2, "optimiser": 0.01, "step": 0.32}
    base = {"median": 1.0, "low": None, "high": None}
    parts = ("libraries", "weights", "gradients", "optimiser_state", "activations", "allocator")
    memory = {"parts": dict.fromkeys(parts, 10**8), "explained": 5 * 10**8, "peak": 52 * 10**7}
    timed = {"n": 4, "ratio": {"median": 1.1, "low": 1.0, "high": 1.2}, "seconds": {"median": 0.1}}
    names = ("base model", *METHODS, "lora merged")
    return copy.deepcopy(
        {
            **{"task": "movie_polarity", "batch_size": 16},
            "machine": {"cpu": "a CPU", "cores": 2, "gpu": None, "other_cpu_share": 0.0},
            "training": {
                name: {"seconds": seconds, "ratio": base if name == "full_ft" else ratio}
                for name in (*METHODS, "lora r=64")
            },
            "memory": dict.fromkeys(METHODS, memory),
            "inference": {name: {"batch_1": timed, "batch_64": timed} for name in names},
        }
    )


PUBLISHED = [
    {"source": "hu2021", "method": "lora", "task": "movie_polarity", "metric": "accuracy"}
    | {"rank": rank, "weights": "query+value", "published": value, "is_fraction": True}
    for rank, value in ((8, 0.81), (64, 0.5))
]


def by_name(found: list[Figure]) -> dict[str, Figure]:
    """Return figures by name."""
    return {figure.name: figure for figure in found}


def test_every_figure_is_written_with_its_n_and_its_unit(tmp_path: Path) -> None:
    found = figures(made_up(), PUBLISHED)
    assert sorted(by_name(found)) == sorted(ALL)
    folder = tmp_path / "plots"
    (folder / "specs").mkdir(parents=True)
    (folder / "svg").mkdir()
    for stale in (folder / "svg/old.svg", folder / "specs/old.json"):
        stale.write_text("")
    write_figures(found, folder)
    assert not [*folder.rglob("old.*")]
    for listed in json.loads((folder / "figures.json").read_text()):
        assert listed["unit"]
        assert listed["alt"].endswith(".")
        assert "n = " in listed["caption"]
        root = ElementTree.parse(tmp_path / listed["svg"]).getroot()
        assert root.tag.endswith("svg")
        assert float(root.attrib["width"]) <= 680
        rows = json.loads((tmp_path / listed["data"]).read_text())
        spec = json.loads((folder / "specs" / f"{listed['name']}.json").read_text())
        assert spec["data"]["values"] == rows
        assert "n = " in str(spec["title"])
        drawn = (tmp_path / listed["svg"]).read_text()
        assert "url(#clip" not in re.sub(r'id="[^"]*"', "", drawn)


def test_rows_are_the_inputs() -> None:
    results = made_up()
    found = by_name(figures(results, PUBLISHED))
    scores = found["scores"].rows
    mean = next(row for row in scores if row["kind"] == "mean")
    cell = results.statistics["cells"][0]
    assert {key: mean[key] for key in ("task", "method", "n", "low", "high")} == {
        key: cell[key] for key in ("task", "method", "n", "low", "high")
    }
    assert mean["value"] == cell["mean"]
    # The row of another rank than the study's is no value to compare with.
    assert [row["value"] for row in scores if row["kind"] == "published"] == [0.81]
    assert sum(row["kind"] == "seed" for row in scores) == 3 * 4 * 2
    assert found["curves"].rows == results.curves
    peaks = [row["bytes"] for row in found["memory"].rows if row["part"] == "peak"]
    assert peaks == [52 * 10**7] * 4
    assert "1 of 3" in found["equal_scores"].caption
    assert "key+value at rank 8" in found["rank_weights"].caption
    by_rank = found["rank_learning_curves"].rows
    # Two ranks on query, one on key and value; full fine-tuning beside both; two evaluations each.
    assert len(by_rank) == (2 + 1 + 2) * 2
    assert {(row["task"], row["series"]) for row in by_rank if row["method"] != "full_ft"} == {
        *(("query", "r = 1"), ("query", "r = 8"), ("key+value", "r = 1"))
    }

    results.statistics["cells"][0]["mean"] = 0.123
    results.profile["training"]["lora"]["seconds"]["forward"] = 0.05
    changed = by_name(figures(results, PUBLISHED))
    assert any(row["value"] == 0.123 for row in changed["scores"].rows)
    assert changed["step_time"].rows != found["step_time"].rows


def test_what_is_missing_leaves_its_figures_out() -> None:
    results = made_up()
    none = replace(results, profile={}, sweep=[], sweep_runs={}, sweep_curves=[])
    assert not {"step_time", "memory", "latency", "rank_weights"} & set(by_name(figures(none, [])))
    sweep = replace(
        results,
        study=results.study | {"methods": []},
        statistics={"gaps": [], "cells": []},
        profile={},
        iso_accuracy={"runs": []},
        stability=[],
        curves=[],
        cells={},
    )
    assert set(by_name(figures(sweep, []))) == {
        *("rank_weights", "rank_curves", "rank_learning_curves")
    }
    assert figures(replace(sweep, sweep=[], sweep_runs={}, sweep_curves=[]), []) == []


@pytest.mark.parametrize("name", ["scores", "parameters", "curves"])
def test_gaps_are_named_and_one_seed_has_no_interval(name: str) -> None:
    gap = by_name(figures(made_up(gap=True), []))[name]
    assert "No results for: AdapterH on tweet_rating." in gap.caption
    alone = by_name(figures(made_up(seeds=1), []))
    assert "stability" not in alone
    assert "n = 1 seed" in alone[name].caption
    assert "<svg" in render_svg(alone[name])


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_figures(figures(made_up(), PUBLISHED), tmp_path / folder)
    for path in (tmp_path / "one").rglob("*.*"):
        again = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == again.read_bytes(), path.name
