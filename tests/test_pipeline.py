"""The pipeline as its users drive it, on a study that trains in seconds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT
from peft_study.data.sources import opinions
from peft_study.files import read_json

PARAMS = """
study: small
model: {{name: {model}, max_length: 32}}
data: {{source: opinions, split_seed: 0}}
seeds: [1, 2]
methods: [lora, full_ft]
tasks:
  tweet_rating: {{train_rows: 32, validation_rows: 20}}
  editorial_polarity: {{train_rows: 32, validation_rows: 20}}
mnli_init:
  mode: per_method
  task: product_polarity
  tasks: [editorial_polarity]
  train_rows: 32
  validation_rows: 20
  seed: 1
sweep:
  task: tweet_rating
  alpha: rank
  ranks: [1]
  weights: [query, query+value]
profile: {{ranks: [], rounds: 0}}
train:
  epochs: 1
  batch_size: 8
  gradient_accumulation_steps: 1
  warmup_ratio: 0.06
  weight_decay: 0.01
  adam_beta2: 0.999
  max_grad_norm: 1.0
  evaluations_per_epoch: 1
  head: trained
  report: best
  device: cpu
  precision: float32
lora:
  r: 8
  alpha: 16
  dropout: 0.0
  targets: [query, value]
  learning_rate: 4e-3
adapter_h: {{bottleneck: 16, activation: gelu, learning_rate: 4e-3}}
full_ft: {{learning_rate: 1e-4, save_weights: false}}
analysis: {{iso_margin: 0.005, equivalence_margin: 0.02, published: []}}
runner:
  backend: local
  workers: auto
  checkpoint_seconds: 60
  store_gigabytes: 1
  ray: {{num_cpus: 1, num_gpus: 0, memory_gigabytes: 1}}
"""


class Project:
    """A copy of the repository with a small study, and the commands of its users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, code: int = 0) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        identity = {
            f"GIT_{who}_{what}": "t@t"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | identity | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout
        return result.stdout

    def stages(self, *command: str) -> set[str]:
        """Run a command of DVC and return the stages that it ran."""
        return stages_in(self.run(*command))

    def results(self) -> dict[str, bytes]:
        """Return the files of results, but the timings."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for folder in ("metrics", "runs", "data/prepared", "starts")
            for path in sorted((self.folder / folder).rglob("*"))
            if path.is_file() and path.name != "timings.csv"
        }

    def findings(self) -> dict[str, bytes]:
        """Return the files of figures and of the page."""
        plots = sorted((self.folder / "plots").rglob("*.*"))
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in plots if p.is_file()}


def stages_in(printed: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", printed))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, archive: Path, model_path: Path) -> Project:
    folder = tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        result = name.startswith(("metrics/", "plots/")) or name == "dvc.lock"
        if (ROOT / name).is_file() and not result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / opinions.DOWNLOADS).mkdir(parents=True)
    shutil.copy(archive, folder / opinions.DOWNLOADS)
    (folder / "params.yaml").write_text(PARAMS.format(model=model_path))
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "a small study")
    project.run("dvc", "repro", "aggregate")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "its results")
    return project


def test_summary_has_the_documented_form(project: Project) -> None:
    summary = read_json(project.folder / "metrics/summary.json")
    assert set(summary) == {"tweet_rating", "editorial_polarity"}
    cell = summary["tweet_rating"]["lora"]
    assert set(cell) == {"pearson", "spearman", "trainable"}
    assert set(cell["pearson"]) == {"median", "std", "n", "cv_first", "cv_last"}
    assert cell["trainable"] == {"adapter": 2 * 2 * 2 * 32 * 8, "head": 33, "total": 2081}
    assert set(summary["editorial_polarity"]["baseline"]) == {"accuracy", "f1"}


def test_the_sweep_is_one_tidy_table(project: Project) -> None:
    rows = read_json(project.folder / "metrics/sweep.json")
    found = [(r["weights"], r["rank"], r["metric"], r["n"], r["trainable_adapter"]) for r in rows]
    assert found == [
        (weights, 1, metric, 2, 2 * 2 * 32 * len(weights.split("+")))
        for weights in ("query", "query+value")
        for metric in ("pearson", "spearman")
    ]


def test_only_the_tasks_that_say_so_start_from_the_intermediate_task(project: Project) -> None:
    starts = project.folder / "starts/lora"
    assert [p.name for p in (starts / "tweet_rating").iterdir()] == ["start.json"]
    assert (starts / "editorial_polarity/adapter_model.safetensors").is_file()


def test_nothing_to_do(project: Project) -> None:
    # It looks at data and models outside of the repository, which DVC cannot watch.
    assert project.stages("dvc", "repro", "aggregate") == {"configure"}


def test_a_second_clean_run_gives_the_same_bytes(project: Project) -> None:
    before = project.results()
    assert len(before) > 30
    store, aside = project.folder / ".run_store", project.folder / ".store_aside"
    store.rename(aside)
    ran = project.stages("dvc", "repro", "--force", "--single-item", "train@lora-tweet_rating")
    assert ran == {"train@lora-tweet_rating"}
    shutil.rmtree(store)
    aside.rename(store)
    project.run("dvc", "repro", "aggregate")
    assert project.results() == before


def test_an_ablation_retrains_its_cells_and_no_other(project: Project) -> None:
    before = project.results()
    printed = project.run("dvc", "exp", "run", "--set-param", "lora.r=3", "aggregate")
    tasks = ("tweet_rating", "editorial_polarity")
    assert stages_in(printed) == {"configure", "mnli_init", "aggregate"} | {
        f"{stage}@lora-{task}" for stage in ("start", "train", "evaluate") for task in tasks
    }
    assert re.search(r"full_ft product_polarity seed 1: .* from the run store", printed)
    assert printed.count("from the run store") == 1
    changed = {name for name, value in project.results().items() if before[name] != value}
    assert changed
    assert all("full_ft" not in name for name in changed)
    difference = project.run("dvc", "metrics", "diff")
    assert "tweet_rating.lora.trainable.adapter" in difference
    assert "full_ft" not in difference
    assert len(difference.splitlines()) < 25
    # Back again: everything comes from DVC's cache.
    project.run("git", "checkout", "--quiet", "params.yaml")
    ran = project.stages("dvc", "repro", "aggregate")
    assert not {stage for stage in ran if stage.startswith(("train", "mnli_init"))}
    assert project.results() == before


def test_one_encoder_may_start_all_methods(project: Project) -> None:
    command = ("dvc", "exp", "run", "--set-param", "mnli_init.mode=full_ft", "aggregate")
    ran = project.stages(*command)
    trained = {s for s in ran if s.startswith(("train", "mnli_init", "sweep"))}
    assert trained == {"mnli_init", "train@lora-editorial_polarity"}
    starts = [project.folder / f"starts/{m}/editorial_polarity" for m in ("lora", "full_ft")]
    weights = [(start / "adapter_model.safetensors").read_bytes() for start in starts]
    assert weights[0] == weights[1]
    project.run("git", "checkout", "--quiet", "params.yaml")
    project.run("dvc", "repro", "aggregate")


def test_bad_data_stops_the_run_before_any_training(project: Project) -> None:
    good = (project.folder / "params.yaml").read_text()
    before = project.results()
    short = good.replace(
        "editorial_polarity: {train_rows: 32", "editorial_polarity: {train_rows: 32000"
    ).replace("epochs: 1\n", "epochs: 2\n")
    assert short.count("32000") == 1
    try:
        (project.folder / "params.yaml").write_text(short)
        printed = project.run("dvc", "repro", "aggregate", code=255)
    finally:
        (project.folder / "params.yaml").write_text(good)
    assert "error: tasks.editorial_polarity.train_rows: got 32000; must be at most" in printed
    assert "Running stage 'train@" not in printed
    assert "Traceback" not in printed
    project.run("dvc", "repro", "aggregate")
    assert project.results() == before


def test_how_runs_are_run_retrains_nothing(project: Project) -> None:
    good = (project.folder / "params.yaml").read_text()
    changed = good.replace("workers: auto", "workers: 1").replace("seconds: 60", "seconds: 5")
    try:
        (project.folder / "params.yaml").write_text(changed)
        assert project.stages("dvc", "repro", "aggregate") == {"configure"}
    finally:
        (project.folder / "params.yaml").write_text(good)


def test_one_more_seed_trains_one_run_per_cell(project: Project) -> None:
    good = (project.folder / "params.yaml").read_text()
    before = project.results()
    try:
        (project.folder / "params.yaml").write_text(good.replace("[1, 2]", "[1, 2, 3]"))
        printed = project.run("dvc", "repro", "aggregate")
    finally:
        (project.folder / "params.yaml").write_text(good)
    # Two methods on two tasks, and two cells of the sweep, with two runs each that were there.
    assert printed.count("from the run store") == 6 * 2
    assert len(re.findall(r"seed 3: \S+ [-\d.]+ at step", printed)) == 6
    assert "mnli_init" not in " ".join(stages_in(printed))
    project.run("dvc", "repro", "aggregate")
    assert project.results() == before


def test_a_mistake_stops_the_run_before_anything_is_lost(project: Project) -> None:
    before = project.results()
    good = (project.folder / "params.yaml").read_text()
    try:
        (project.folder / "params.yaml").write_text(good.replace("r: 8", "r: 0"))
        configs = sorted((project.folder / "configs").rglob("*.json"))
        printed = project.run("dvc", "repro", "aggregate", code=255)
        assert sorted((project.folder / "configs").rglob("*.json")) == configs
    finally:
        (project.folder / "params.yaml").write_text(good)
    assert "error: params.yaml: lora.r: got 0; must be greater than or equal to 1\n" in printed
    assert "Traceback" not in printed
    assert project.results() == before
    project.run("dvc", "repro", "aggregate")


def test_stability_and_equal_scores_are_told_of_every_cell(project: Project) -> None:
    assert project.stages("dvc", "repro", "curves") == {"configure", "profile", "curves"}
    found = read_json(project.folder / "metrics/iso_accuracy.json")
    assert len(found["runs"]) == 2 * 2 * 2  # methods, tasks, seeds
    assert {row["n"] for row in found["seconds_per_epoch"]} == {2}  # an epoch of two seeds
    stability = read_json(project.folder / "metrics/stability.json")
    assert {(row["method"], row["epoch"], row["n"]) for row in stability} == {
        (method, 1.0, 2) for method in ("lora", "full_ft")
    }


def test_a_profile_is_measured_where_it_is_asked_for(project: Project) -> None:
    assert read_json(project.folder / "metrics/profile.json") == {}  # the study has no rounds
    good = (project.folder / "params.yaml").read_text()
    try:
        changed = good.replace("rounds: 0", "rounds: 2, assumed_watts: 40")
        (project.folder / "params.yaml").write_text(changed)
        assert project.stages("dvc", "repro", "profile") == {"configure", "profile"}
    finally:
        (project.folder / "params.yaml").write_text(good)
    found = read_json(project.folder / "metrics/profile.json")
    assert found["task"] == "tweet_rating"
    assert set(found["training"]) == set(found["memory"]) == {"lora", "full_ft"}
    assert found["energy"]["source"] in ("RAPL", "estimate")


FINDINGS = ("aggregate", "curves", "claims", "figures", "report", "export")


def test_findings_follow_the_predictions(project: Project) -> None:
    project.run("dvc", "repro", "curves")
    # What the models' counts and the numbers of another encoder are does not matter here.
    shutil.copy(ROOT / "metrics/parity.json", project.folder / "metrics")
    project.run("dvc", "repro", "--single-item", *FINDINGS)
    before = project.results() | project.findings()
    path = project.folder / "runs/lora/editorial_polarity/seed-1/predictions.parquet"
    whole = path.read_bytes()
    frame = pd.read_parquet(path)
    frame["prediction"] = [1 - frame["prediction"].iloc[0], *frame["prediction"].iloc[1:]]
    frame.to_parquet(path, index=False)
    again = ("evaluate@lora-editorial_polarity", *FINDINGS)
    project.run("dvc", "repro", "--single-item", *again)
    after = project.results() | project.findings()
    changed = {name for name, value in after.items() if before[name] != value}
    assert {f"metrics/{n}.json" for n in ("summary", "statistics", "claims")} <= changed
    assert {"plots/report.html", "plots/svg/scores.svg", "metrics/tables/scores.md"} <= changed
    assert not {name for name in changed if "full_ft" in name or "tweet_rating" in name}
    path.write_bytes(whole)
    project.run("dvc", "repro", "--single-item", *again)
    assert project.results() | project.findings() == before


def test_a_cell_without_results_is_named_and_not_averaged_over(project: Project) -> None:
    cell = project.folder / "metrics/runs/full_ft/tweet_rating.json"
    scores = cell.read_bytes()
    cell.unlink()
    try:
        printed = project.run("dvc", "repro", "--single-item", *FINDINGS)
    finally:
        cell.write_bytes(scores)
    assert "aggregate: no results of full_ft on tweet_rating" in printed
    statistics = read_json(project.folder / "metrics/statistics.json")
    averages = {r["method"]: r["mean_of_medians"] for r in statistics["averages"]}
    assert averages["full_ft"] is None
    assert averages["lora"] is not None
    page = (project.folder / "plots/report.html").read_text(encoding="utf-8")
    assert "Full fine-tuning on tweet_rating has no results" in page
    project.run("dvc", "repro", "--single-item", *FINDINGS)
    assert "has no results" not in (project.folder / "plots/report.html").read_text("utf-8")
