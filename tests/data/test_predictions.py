"""Predictions made elsewhere: exactly the scores of the run that made them, or one line."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import make_config
from peft_study.data import predictions
from peft_study.data.tasks import TASKS, Task
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.findings.evaluate import evaluate
from peft_study.records.scores import Counts
from peft_study.run_config import CellConfig, PredictionsSettings
from peft_study.study import check_study

TASK = "movie_polarity"
NAMES = ("negative", "positive")


@pytest.fixture
def prepared(learnable: Path, tmp_path: Path) -> Path:
    """Return the task with the summary that scoring reads."""
    folder = tmp_path / "prepared"
    shutil.copytree(learnable, folder)
    splits = {name: {"rows": 9, "sha256_of_ids": "ab"} for name in ("train", "validation")}
    baseline = dict.fromkeys(TASKS[TASK].metrics, 0.5)
    write_json(folder / "summary.json", {"baseline": baseline, "splits": splits})
    return folder


def table(prepared: Path) -> pd.DataFrame:
    """Return predictions of the held-out rows, with their labels, some of them wrong."""
    rows = predictions.held_out(prepared)
    found = pd.DataFrame({"id": rows.ids, "prediction": rows.labels, "label": rows.labels})
    found.loc[:9, "prediction"] = 1 - found.loc[:9, "prediction"]
    return found


def located(folder: Path, task: Task = TASKS[TASK], seeds: tuple[int, ...] = (1,)) -> Any:
    settings = PredictionsSettings(str(folder))
    return predictions.locate("theirs", settings, {TASK: task}, seeds)[TASK]


def write(folder: Path, frame: pd.DataFrame, seed: int = 1) -> Path:
    path = folder / TASK / f"seed-{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def test_a_runs_own_predictions_score_what_the_run_does(prepared: Path, tmp_path: Path) -> None:
    """As classes in any order, as names of classes, and in every form of a table."""
    run = replace(make_config("lora", Path("encoder"), report="last"), save_weights=False)
    seeds, theirs, rows = (1, 2, 10, 3), tmp_path / "theirs", predictions.held_out(prepared)
    (theirs / TASK).mkdir(parents=True)
    for seed in seeds:
        guessed = np.random.default_rng(seed).integers(2, size=len(rows.ids))
        frame = pd.DataFrame({"id": rows.ids, "label": rows.labels, "prediction": guessed})
        (tmp_path / f"runs/seed-{seed}").mkdir(parents=True)
        write_json(tmp_path / f"runs/seed-{seed}/run.json", {"trainable": Counts(1, 2, 3)})
        stored = frame.assign(step=8, epoch=1.0)
        stored.to_parquet(tmp_path / f"runs/seed-{seed}/predictions.parquet")
        frame = frame.sample(frac=1, random_state=0)
        place = theirs / TASK / f"seed-{seed}"
        if seed == 1:
            frame[["id", "label", "prediction"]].to_csv(f"{place}.csv", index=False)
        elif seed == 2:
            frame["prediction"] = [NAMES[index] for index in frame["prediction"]]
            frame[["prediction", "id"]].to_csv(f"{place}.tsv", index=False, sep="\t")
        elif seed == 3:
            frame.to_json(f"{place}.jsonl", orient="records", lines=True)
        else:
            frame.astype({"prediction": float}).to_parquet(f"{place}.parquet")
    ours = CellConfig(run, seeds)
    other = CellConfig(replace(run, settings=located(theirs, seeds=seeds)), seeds)
    assert predictions.take(other, prepared, tmp_path / "taken") == len(seeds)
    tables = [tmp_path / "ours.parquet", tmp_path / "theirs.parquet"]
    expected = evaluate(ours, tmp_path / "runs", prepared, tables[0])
    found = evaluate(other, tmp_path / "taken", prepared, tables[1])
    for name, of in expected.seeds.items():
        for at in ("first", "best", "last"):
            assert getattr(found.seeds[name], at).scores == of.last.scores
        assert found.seeds[name].learned == of.learned
    pd.testing.assert_frame_equal(pd.read_parquet(tables[0]), pd.read_parquet(tables[1]))
    assert len({of.last.scores["accuracy"] for of in expected.seeds.values()}) > 1
    # What was trained, and on what, is not known; it is not nothing.
    assert found.trainable is None
    assert set(found.data) == {"validation"}


def test_scores_are_read_as_runs_store_them(tmp_path: Path) -> None:
    scores = np.array([0.1, -2.5, 3.3333333], np.float32)
    frame = pd.DataFrame({"id": list("abc"), "prediction": scores})
    write(tmp_path, frame)
    task = Task(("text",), None, ("pearson",))
    found = predictions.read(located(tmp_path, task), TASK, "seed-1.csv", task)
    assert list(found.values()) == scores.astype(float).tolist()


Change = Callable[[pd.DataFrame], pd.DataFrame]


def setting(row: int, **values: Any) -> Change:
    """Return what sets values of a row of a table."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.astype(object)
        for column, value in values.items():
            changed.loc[row, column] = value
        return changed

    return change


BEFORE: dict[str, tuple[Change, str]] = {
    "class": (setting(2, prediction="neutral"), "line 4: prediction 'neutral' is no label (n"),
    "index": (setting(2, prediction=2), "line 4: prediction '2' is no label (negative, positive)"),
    "fraction": (setting(2, prediction=0.5), "line 4: prediction '0.5' is no label"),
    "gap": (setting(2, prediction=""), "line 4: prediction '' is no label"),
    "repeated": (setting(2, id="validation:0"), "line 4: id 'validation:0' is in line 2 already"),
    "column": (lambda f: f.drop(columns="prediction"), "column 'prediction' is missing"),
    "no id": (lambda f: f.drop(columns="id"), "column 'id' is missing"),
    "rows": (lambda f: f[:0], "holds no rows"),
}
AFTER: dict[str, tuple[Change, str]] = {
    "extra": (setting(2, id="train:0"), "line 4: id 'train:0' is no held-out row of task 'movie"),
    "missing": (lambda f: f.drop([5, 7]), "for 2 of the 40 held-out rows of task 'movie_polarity"),
    "label": (lambda f: f.assign(label=1 - f["label"]), "line 2: label '"),
}


@pytest.mark.parametrize("mistake", BEFORE)
def test_what_is_wrong_with_a_file_is_a_line_before_rows_are_known(
    mistake: str, prepared: Path, tmp_path: Path
) -> None:
    change, says = BEFORE[mistake]
    path = write(tmp_path, change(table(prepared)))
    with pytest.raises(StudyError) as caught:
        located(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: recipes.theirs: {path}")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("mistake", AFTER)
def test_rows_that_are_not_the_tasks_are_a_line_once_these_are_known(
    mistake: str, prepared: Path, tmp_path: Path
) -> None:
    change, says = AFTER[mistake]
    path = write(tmp_path, change(table(prepared)))
    settings = located(tmp_path)
    with pytest.raises(StudyError) as caught:
        predictions.check("theirs", settings, TASK, TASKS[TASK], prepared)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: recipes.theirs: {path}")
    assert says in message
    assert "\n" not in message
    write(tmp_path, table(prepared))
    with pytest.raises(StudyError, match="was checked; run again"):
        predictions.check("theirs", settings, TASK, TASKS[TASK], prepared)
    predictions.check("theirs", located(tmp_path), TASK, TASKS[TASK], prepared)


def test_files_that_are_not_there_or_there_twice(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"folder: got '.*nowhere'; there is no such folder$"):
        located(tmp_path / "nowhere")
    path = write(tmp_path, table(prepared))
    with pytest.raises(StudyError, match=r"seed-2.csv: no such file, .* in 'only'$"):
        located(tmp_path, seeds=(1, 2))
    table(prepared).to_csv(path.with_suffix(".tsv"), sep="\t", index=False)
    with pytest.raises(StudyError, match=r"seed-1.tsv: seed-1.csv is of this seed too; keep one$"):
        located(tmp_path)


def test_labels_that_are_numbers_are_no_indices(tmp_path: Path) -> None:
    """Of the labels 1 and 0, in this order, a 1 is the first; of 2 and 4, a 1 is none."""
    write(tmp_path, pd.DataFrame({"id": ["a", "b"], "prediction": ["1", "0.0"]}))
    task = Task(("text",), ("1", "0"), ("accuracy",))
    found = predictions.read(located(tmp_path, task), TASK, "seed-1.csv", task)
    assert found == {"a": 0, "b": 1}
    with pytest.raises(StudyError, match=r"prediction '1' is no label \(2, 4\)$"):
        located(tmp_path, Task(("text",), ("2", "4"), ("accuracy",)))


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({}, "recipes.theirs.folder: is missing; add it"),
        ({"epochs": 2}, "recipes.theirs.epochs: unknown key for what is like 'predictions'"),
        ({"learning_rate": 0.1}, "recipes.theirs.learning_rate: unknown key for what is like"),
        ({"config": {"r": 1}}, "recipes.theirs.config: unknown key for what is like"),
    ],
)
def test_a_recipe_of_predictions_has_a_folder_and_nothing_to_train(
    theirs: dict[str, Any], says: str, params: dict[str, Any]
) -> None:
    folder = {"folder": "their"} if theirs else {}
    params["recipes"] = {"theirs": {"like": "predictions"} | folder | theirs}
    with pytest.raises(StudyError) as caught:
        check_study(params)
    assert str(caught.value).startswith(f"params.yaml: {says}")
    assert "\n" not in str(caught.value)


def test_a_task_sets_nothing_for_predictions(params: dict[str, Any]) -> None:
    params["recipes"] = {"theirs": {"like": "predictions", "folder": "their"}}
    params["tasks"][TASK]["theirs"] = {"epochs": 2}
    with pytest.raises(StudyError, match=f"tasks.{TASK}.theirs: it is not trained here; take it o"):
        check_study(params)


def test_run_files_do_not_say_what_was_trained(prepared: Path, tmp_path: Path) -> None:
    write(tmp_path / "theirs", table(prepared), 7)
    run = make_config("lora", Path("encoder"))
    cell = CellConfig(replace(run, settings=located(tmp_path / "theirs", seeds=(7,))), (7,))
    predictions.take(cell, prepared, tmp_path / "runs")
    files = sorted(path.name for path in (tmp_path / "runs/seed-7").iterdir())
    assert files == ["predictions.parquet", "run.json"]
    assert read_json(tmp_path / "runs/seed-7/run.json") == {"seed": 7, "trainable": None}
