"""The pipeline as its users drive it, on a study that trains in seconds."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from conftest import shared_folder
from peft_study.files import read_json
from project import FINDINGS, Project, build, stages_in, trained_in, without

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, archive: Path, model_path: Path) -> Path:
    """Return the folder of a small study with its results, built once for all test processes."""
    folder = shared_folder(tmp_path_factory) / "built_project"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_name("unfinished_project")
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished, archive, model_path)
            unfinished.rename(folder)
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path, programs: Path) -> Project:
    """Return a copy of the small study: what a test does to it concerns no other."""
    shutil.copytree(built, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", programs)


def test_results_have_the_documented_form(project: Project) -> None:
    summary = read_json(project.folder / "metrics/summary.json")
    assert set(summary) == {"tweet_rating", "editorial_polarity"}
    assert all(set(cells) == {"lora", "full_ft"} for cells in summary.values())
    assert set(summary["tweet_rating"]["lora"]) == {"median", "std"}
    found = read_json(project.folder / "metrics/runs/lora/tweet_rating.json")
    assert found["trainable"] == {"adapter": 2 * 2 * 2 * 32 * 8, "head": 33, "total": 2081}
    header, *_ = project.run("dvc", "metrics", "show", "--md").splitlines()
    assert header.count("|") - 1 <= 2 * 4 + 3
    rows = read_json(project.folder / "metrics/sweep.json")
    swept = [(r["weights"], r["rank"], r["metric"], r["n"], r["trainable_adapter"]) for r in rows]
    assert swept == [
        (weights, 1, metric, 2, 2 * 2 * 32 * len(weights))
        for weights in (["query"], ["query", "value"])
        for metric in ("pearson", "spearman")
    ]
    equal = read_json(project.folder / "metrics/iso_accuracy.json")
    assert len(equal["runs"]) == 2 * 2 * 2  # methods, tasks, seeds
    assert {row["n"] for row in equal["seconds_per_epoch"]} == {2}  # an epoch of two seeds
    stability = read_json(project.folder / "metrics/stability.json")
    assert {(row["method"], row["epoch"], row["n"]) for row in stability} == {
        (method, 1.0, 2) for method in ("lora", "full_ft")
    }
    assert read_json(project.folder / "metrics/profile.json") is None  # the study has no rounds


def test_nothing_to_do_and_how_runs_are_run_retrains_nothing(project: Project) -> None:
    # It looks at data and models outside of the repository, which DVC cannot watch.
    assert stages_in(project.run("dvc", "repro", "aggregate")) == {"configure"}
    project.set("workers: auto", "workers: 1")
    project.set("seconds: 60", "seconds: 5")
    assert stages_in(project.run("dvc", "repro", "aggregate")) == {"configure"}


def test_a_second_clean_run_gives_the_same_bytes(project: Project) -> None:
    before = project.results()
    assert len(before) > 30
    shutil.rmtree(project.folder / ".dvc/cache/peft_study")
    shutil.rmtree(project.folder / "runs/lora")
    printed = project.run("dvc", "repro", "--force", "--single-item", "train@lora")
    assert len(trained_in(printed)) == 2 * 2
    assert project.results() == before


def test_an_ablation_retrains_what_it_changes_and_no_other(project: Project) -> None:
    before = project.results()
    project.set("r: 8", "r: 3")
    assert "editorial_polarity.run.settings.r: 8 -> 3" in project.run(
        "python", "-m", "peft_study.why", "train@lora"
    )
    assert "r: 8 -> 3" not in project.run("python", "-m", "peft_study.why", "train@full_ft")
    project.run("git", "checkout", "--quiet", "params.yaml")
    printed = project.run("dvc", "exp", "run", "--name", "three", "-S", "lora.r=3", "aggregate")
    assert stages_in(printed) == {
        *("configure", "certify", "mnli_init", "train@lora", "evaluate@lora", "aggregate"),
        *("tune", "variants"),  # which wait for the certificates, and train nothing anew
    }
    tasks = ("tweet_rating", "editorial_polarity")
    assert trained_in(printed) == sorted(
        [
            "lora product_polarity seed 1",
            *(f"lora {task} seed {n}" for task in tasks for n in (1, 2)),
        ]
    )
    changed = {name for name, value in project.results().items() if before[name] != value}
    assert changed
    assert all("full_ft" not in name for name in changed)
    difference = project.run("dvc", "metrics", "diff")
    assert "tweet_rating.lora.median" in difference
    assert "full_ft" not in difference
    assert len(difference.splitlines()) <= 1 + 2 * 2  # a heading, two numbers of two cells
    assert "lora.r" in project.run("dvc", "params", "diff")
    table = project.run("python", "-m", "peft_study.experiments")
    assert re.search(r"lora\.r.*tweet_rating lora", table)
    assert "full_ft" not in table
    assert max(map(len, table.splitlines())) <= 200
    # Back again: everything comes from DVC's cache.
    project.run("git", "checkout", "--quiet", "params.yaml")
    printed = project.run("dvc", "repro", "aggregate")
    assert not trained_in(printed)
    assert project.results() == before


def test_a_method_from_the_command_line_retrains_no_other(project: Project) -> None:
    before = project.results()
    own = "+recipes.small={like: peft_lora, r: 1, label: Small, config: {use_dora: true}}"
    methods = ("-S", "methods=[lora,full_ft,small]")
    printed = project.run("dvc", "exp", "run", "-S", own, *methods, "aggregate")
    new = {"train@small", "evaluate@small"}
    assert stages_in(printed) == {
        "configure",
        "certify",
        "mnli_init",
        "tune",
        *new,
        "variants",
        "aggregate",
    }
    tasks = [f"small {t} seed {n}" for t in ("tweet_rating", "editorial_polarity") for n in (1, 2)]
    assert trained_in(printed) == sorted(["small product_polarity seed 1", *tasks])
    assert "| Small | 384 +" in printed  # DoRA: 2 layers x 2 weights x (2 x 32 x 1 + 32)
    after = project.results()
    assert all(after[name] == value for name, value in before.items() if "/full_ft/" in name)
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout", "--force")


def test_one_encoder_may_start_all_methods(project: Project) -> None:
    starts = project.folder / "init"
    assert (starts / "lora/start/adapter_model.safetensors").is_file()
    project.set("mode: per_method", "mode: full_ft")
    printed = project.run("dvc", "repro", "train@lora", "train@full_ft")
    assert trained_in(printed) == [f"lora editorial_polarity seed {seed}" for seed in (1, 2)]
    lora, full = (starts / m / "start/adapter_model.safetensors" for m in ("lora", "full_ft"))
    assert lora.read_bytes() == full.read_bytes()
    project.set("mode: full_ft", "mode: none")
    printed = project.run("dvc", "repro", "train@lora", "train@full_ft")
    assert len(trained_in(printed)) == 2 * 2
    assert [path.name for path in (starts / "lora/start").iterdir()] == ["start.json"]


def test_bad_data_stops_the_run_before_any_training(project: Project) -> None:
    before = project.results()
    project.set("editorial_polarity: {train_rows: 32", "editorial_polarity: {train_rows: 32000")
    project.set("epochs: 1\n", "epochs: 2\n")
    printed = project.run("dvc", "repro", "aggregate", code=255)
    assert "error: tasks.editorial_polarity.train_rows: got 32000; must be at most" in printed
    assert stages_in(printed) == {"configure", "prepare"}
    assert "Traceback" not in printed
    project.run("git", "checkout", "--quiet", "params.yaml")
    project.run("dvc", "repro", "aggregate")
    assert project.results() == before


def test_a_mistake_stops_the_run_before_anything_is_lost(project: Project) -> None:
    before = project.results()
    configs = sorted((project.folder / "configs").rglob("*.json"))
    project.set("r: 8", "r: 0")
    printed = project.run("dvc", "repro", "aggregate", code=255)
    assert "error: params.yaml: lora.r: got 0; must be greater than or equal to 1\n" in printed
    assert "Traceback" not in printed
    assert sorted((project.folder / "configs").rglob("*.json")) == configs
    assert project.results() == before


def test_another_python_first_on_the_path_is_named_in_a_line(project: Project) -> None:
    bare = project.folder.parent / "bin"
    bare.mkdir()
    (bare / "python").write_text('#!/bin/sh\nexec /usr/bin/env -i python3 -S -I "$@"\n')
    (bare / "python").chmod(0o755)
    printed = project.run("dvc", "repro", "aggregate", code=255, path=f"{bare}:/usr/bin:/bin")
    assert "is not the study's" in printed
    assert "run 'source .venv/bin/activate'" in printed
    assert "Traceback" not in printed


def test_findings_follow_the_predictions(project: Project) -> None:
    before = project.results() | project.findings()
    path = project.folder / "runs/lora/editorial_polarity/seed-1/predictions.parquet"
    frame = pd.read_parquet(path)
    frame["prediction"] = [1 - frame["prediction"].iloc[0], *frame["prediction"].iloc[1:]]
    frame.to_parquet(path, index=False)
    project.run("dvc", "repro", "--single-item", "evaluate@lora", *FINDINGS)
    after = project.results() | project.findings()
    changed = {name for name, value in after.items() if before[name] != value}
    assert {f"metrics/{n}.json" for n in ("summary", "statistics", "claims")} <= changed
    assert {"plots/report.html", "plots/svg/scores.svg", "metrics/tables/scores.md"} <= changed
    assert not {name for name in changed if "full_ft" in name or "tweet_rating" in name}


def test_a_run_that_diverges_is_a_gap_that_is_named(project: Project) -> None:
    project.set("methods: [lora, full_ft]", "methods: [lora, adapter_h, full_ft]")
    # AdamW then divides 0 by 0, where a parameter has no gradient yet.
    project.set("alpha: 16\n", "alpha: 16\n  adam_epsilon: 1.0e-300\n")
    printed = project.run("dvc", "repro", "aggregate", "curves")
    assert re.search(r"lora tweet_rating seed 2: no result: the loss is (nan|inf) after", printed)
    assert "LoRA (ours) on tweet_rating (seed 1: the loss is" in printed
    assert "LoRA (ours) on editorial_polarity (seed 1: its start, the intermediate" in printed
    project.run("dvc", "repro", "--single-item", *FINDINGS)
    statistics = read_json(project.folder / "metrics/statistics.json")
    averages = {r["method"]: r["mean_of_medians"] for r in statistics["averages"]}
    assert averages["lora"] is None
    assert averages["full_ft"] is not None
    page = (project.folder / "plots/report.html").read_text(encoding="utf-8")
    assert "LoRA (ours) on tweet_rating has no results: seed 1: the loss is" in page


def test_a_method_is_added_by_a_row_and_a_module(project: Project) -> None:
    """It is then in the summary, in every figure, in the tables, on the page, and in the costs."""
    methods = project.folder / "src/peft_study/methods"
    table = methods / "__init__.py"
    row = '"mine": MethodRow("My LoRA", "lora", "mine", "lora", exported=True),\n}\n'
    table.write_text(re.sub(r"^}\n", f"    {row}", table.read_text(), count=1, flags=re.M))
    shutil.copy(methods / "lora.py", methods / "mine.py")
    project.set("methods: [lora, full_ft]", "methods: [lora, mine, full_ft]")
    project.set("rounds: 0", "rounds: 2")
    printed = project.run("dvc", "repro", "aggregate", "curves")
    assert len(trained_in(printed)) == 1 + 2 * 2  # its intermediate run, two tasks, two seeds
    assert all(name.startswith("mine ") for name in trained_in(printed))
    project.run("dvc", "repro", "--single-item", *FINDINGS)
    summary = read_json(project.folder / "metrics/summary.json")
    assert summary["tweet_rating"]["mine"] == summary["tweet_rating"]["lora"]
    for path in (project.folder / "plots/svg").glob("*.svg"):
        swept = path.stem.startswith("rank_")  # of our LoRA alone
        assert swept or "My LoRA" in path.read_text(encoding="utf-8"), path.name
    for name in ("scores.md", "scores.tex"):
        assert "My LoRA" in (project.folder / "metrics/tables" / name).read_text()
    page = (project.folder / "plots/report.html").read_text(encoding="utf-8")
    assert '<th scope="row">My LoRA</th>' in page
    assert (project.folder / "exports/mine/tweet_rating/README.md").is_file()
    costs = read_json(project.folder / "metrics/profile.json")
    (task,) = costs["tasks"]
    for part in ("training", "memory"):
        assert [row["recipe"]["method"] for row in task[part]] == ["lora", "full_ft", "mine"]
    # A rank under comparison measures nothing again.
    project.set("r: 8\n", "r: 3\n")
    assert stages_in(project.run("dvc", "repro", "profile")) == {"configure"}


def test_predictions_made_elsewhere_take_part_without_being_trained(project: Project) -> None:
    before, names = project.results(), ("editorial_polarity", "tweet_rating")
    for task in names:
        for run in sorted((project.folder / "runs/lora" / task).iterdir()):
            path = project.folder / "their" / task / f"{run.name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame = pd.read_parquet(run / "predictions.parquet", columns=["id", "prediction"])
            frame.to_csv(path, index=False)
    project.set("methods: [lora, full_ft]", "methods: [lora, theirs, full_ft]")
    project.set("analysis:", "recipes: {theirs: {like: predictions, folder: their}}\nanalysis:")
    printed = project.run("dvc", "repro", "aggregate", "curves")
    assert not trained_in(printed)
    project.run("dvc", "repro", "--single-item", *without(FINDINGS, "aggregate", "curves"))
    after = project.results()
    assert all(after[name] == before[name] for name in before if "/lora" in name)
    for task in names:
        ours, theirs = (
            read_json(project.folder / f"metrics/runs/{method}/{task}.json")
            for method in ("lora", "theirs")
        )
        for seed, run in ours["seeds"].items():
            of = theirs["seeds"][seed]
            assert (of["cross_fitted"], of["learned"]) == (run["cross_fitted"], run["learned"])
            assert of["best"] | {"step": 4, "epoch": 1.0} == run["best"]
        assert theirs["trainable"] is None
    table = (project.folder / "metrics/tables/scores.md").read_text()
    scores = {line.split("|")[1].strip(): line.split("|")[2:] for line in table.splitlines()}
    assert scores["theirs"] == [" not known ", *scores["LoRA (ours)"][1:]]
    said = "theirs: trained elsewhere, so that costs and learning curves are not measured here."
    assert said in (project.folder / "plots/report.html").read_text()
    # A row that is not the task's is known before anything is trained.
    path.write_text(path.read_text().replace("\n", "\ntweet:0_", 1))
    project.set("epochs: 1\n", "epochs: 2\n")
    printed = project.run("dvc", "repro", "aggregate", code=255)
    where = "error: params.yaml: recipes.theirs: their/tweet_rating/seed-2.csv line 2: id"
    assert where in printed
    assert stages_in(printed) == {"configure", "prepare"}
    assert "Traceback" not in printed


def clone(project: Project) -> Project:
    """Push everything to a remote of DVC, and return a clone of git's alone."""
    remote = str(project.folder.parent / "remote")
    project.run("dvc", "remote", "add", "--default", "storage", remote)
    project.commit("a remote")
    project.run("dvc", "push", "--quiet", "--run-cache")
    copied = project.folder.parent / "clone"
    project.run("git", "clone", "--quiet", str(project.folder), str(copied))
    return Project(copied, project.programs)


def test_a_clone_that_pulled_trains_only_what_is_new(project: Project) -> None:
    cloned = clone(project)
    cloned.run("dvc", "pull", "--quiet")
    cloned.set("seeds: [1, 2]", "seeds: [1, 2, 3]")
    printed = cloned.run("dvc", "repro", "aggregate")
    assert "configure: took 14 run(s) into" in printed  # twelve, and two intermediate ones
    # Two methods on two tasks, and two cells of the sweep.
    assert len(trained_in(printed)) == 6
    assert all(name.endswith("seed 3") for name in trained_in(printed))
    assert printed.count("from the run store") == 6 * 2
    assert "mnli_init" not in stages_in(printed)


def test_an_ablation_in_a_bare_clone_leaves_the_other_methods_scores(project: Project) -> None:
    cloned = clone(project)
    scores = cloned.folder / "metrics/runs/full_ft/tweet_rating.json"
    before = scores.read_bytes()
    printed = cloned.run(
        *("dvc", "exp", "run", "--pull", "--allow-missing", "-S", "lora.r=3", "aggregate")
    )
    assert {"train@lora", "evaluate@lora", "aggregate"} <= stages_in(printed)
    assert not {"train@full_ft", "evaluate@full_ft"} & stages_in(printed)
    assert scores.read_bytes() == before
    summary = read_json(cloned.folder / "metrics/summary.json")
    old = read_json(project.folder / "metrics/summary.json")
    for task, cells in old.items():
        assert set(summary[task]) == set(cells)
        assert summary[task]["full_ft"] == cells["full_ft"]


def test_one_more_setting_of_the_ledger_trains_its_runs_and_no_other(project: Project) -> None:
    with (project.folder / "params.yaml").open("a") as params:
        params.write("ledger:\n  methods: [lora]\n  tasks: [tweet_rating]\n  together: false\n")
        params.write("  settings:\n    alpha 8: {lora.alpha: 8}\n    last: {train.report: last}\n")

    def trained() -> list[str]:
        project.run("env", "PYTHONPATH=src", "python", "stages/configure.py")
        return trained_in(project.run("env", "PYTHONPATH=src", "python", "stages/variants.py"))

    first = trained()
    # The study as it stands is in the store, and which evaluation counts is no run's own.
    assert {f"lora tweet_rating alpha-8 seed {seed}" for seed in (1, 2)} <= set(first)
    assert not any(" study " in name or " last " in name for name in first)
    found = read_json(project.folder / "metrics/runs/variants.json")
    kinds = [(entry["kind"], entry["settings"]) for entry in found["ledger"]]
    assert kinds[:3] == [("study", []), ("alone", ["alpha 8"]), ("alone", ["last"])]
    with (project.folder / "params.yaml").open("a") as params:
        params.write("    rank 1: {lora.r: 1}\n")
    again = trained()
    assert {f"lora tweet_rating rank-1 seed {seed}" for seed in (1, 2)} <= set(again)
    # Of the others, the pair may be another one.
    assert all(" rank-1 " in name or " pair " in name for name in again)


def test_one_more_task_in_a_folder_of_its_own_trains_its_runs_and_no_other(
    project: Project,
) -> None:
    before, task = project.results(), "+tasks.movie_polarity={train_rows: 32}"
    run = ("dvc", "exp", "run", "--temp", "--name", "task", "-S", task, "aggregate")
    printed = project.run(*run)
    assert trained_in(printed) == [
        f"{method} movie_polarity seed {seed}" for method in ("full_ft", "lora") for seed in (1, 2)
    ]
    assert printed.count("from the run store") == 2 * 2 * 2 + 2  # and the intermediate runs
    # Another task's rows concern neither the profile's task nor the sweep's.
    assert not {"variants", "profile"} & stages_in(printed)
    assert project.run("git", "status", "--porcelain") == ""
    compared = project.run("python", "-m", "peft_study.findings.versions", "task")
    assert compared.count("unchanged") == 2 * 2
    assert "movie_polarity: lora has results in one of the versions only" in compared
    project.run("dvc", "exp", "apply", "task")
    after = project.results()
    assert {name for name in before if after[name] != before[name]} == {
        f"metrics/{name}.json" for name in ("statistics", "summary")
    }
