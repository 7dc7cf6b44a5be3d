"""Datasets of the hub: saved copies, and the cache without a network, at the pinned revision."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter

from conftest import ROOT
from peft_study.data.prepare import clean
from peft_study.data.sources import Row, hub
from peft_study.data.tasks import TASKS
from peft_study.errors import StudyError

Rows = list[tuple[Any, ...]]


def dataset(name: str, rows: Rows) -> datasets.Dataset:
    """Build a split as the hub has it: the task's text columns, a label and a number."""
    task = TASKS[name]
    label = datasets.ClassLabel(names=list(task.labels)) if task.labels else datasets.Value("float")
    features = {text: datasets.Value("string") for text in task.texts} | {"label": label}
    columns = dict(zip((*task.texts, "label"), map(list, zip(*rows, strict=True)), strict=True))
    return datasets.Dataset.from_dict(
        columns | {"idx": list(range(len(rows)))},
        datasets.Features(features | {"idx": datasets.Value("int32")}),
    )


def save(folder: Path, name: str, **splits: Rows | datasets.Dataset) -> str:
    """Save a task's splits, or what their rows say, below `folder`, where `data.folder` points."""
    datasets.disable_progress_bars()
    built = {
        split: dataset(name, rows) if isinstance(rows, list) else rows
        for split, rows in splits.items()
    }
    datasets.DatasetDict(built).save_to_disk(str(folder / name))
    return str(folder)


def read(name: str, folder: str) -> list[Row]:
    location = hub.locate(name, TASKS[name], folder, None)
    json.dumps(location)  # it goes into a configuration file
    return list(hub.read_rows(name, TASKS[name], location))


def plain(rows: list[Row]) -> Rows:
    return [(row.id, row.split, *row.texts, row.label) for row in rows]


RTE = {
    "train": dataset("rte", [("It rained.", "It was wet.", 0), ("It rained.", "It was dry.", 1)]),
    "validation": dataset("rte", [("She sang.", "She was silent.", 1)]),
    "test": dataset("rte", [("Nobody", "knows.", -1)]),
}
RTE_ROWS = [
    ("train:0", "train", "It rained.", "It was wet.", 0),
    ("train:1", "train", "It rained.", "It was dry.", 1),
    ("validation:0", "validation", "She sang.", "She was silent.", 1),
]


def test_a_saved_dataset(tmp_path: Path) -> None:
    rows = read("rte", save(tmp_path, "rte", **RTE))
    assert plain(rows) == RTE_ROWS
    assert len({row.group for row in rows}) == 3


def test_mnli_holds_out_two_splits(tmp_path: Path) -> None:
    splits: dict[str, Rows] = {
        "train": [("a", "b", 2)],
        "validation_matched": [("c", "d", 0)],
        "validation_mismatched": [("e", "f", 1), ("g", "h", 2)],
        "test_matched": [("i", "j", -1)],
    }
    assert plain(read("mnli", save(tmp_path, "mnli", **splits))) == [
        ("train:0", "train", "a", "b", 2),
        ("matched:0", "validation", "c", "d", 0),
        ("mismatched:0", "validation", "e", "f", 1),
        ("mismatched:1", "validation", "g", "h", 2),
    ]


def test_stsb_scores(tmp_path: Path) -> None:
    train = [("a", "b", 5.0), ("c", "d", 0.0)]
    folder = save(tmp_path, "stsb", train=train, validation=[("e", "f", 2.5)])
    assert [row.label for row in read("stsb", folder)] == [5.0, 0.0, 2.5]


def test_ag_news_is_validated_on_its_test_split(tmp_path: Path) -> None:
    train = [("Shares fell.", 2), ("They won.", 1)]
    folder = save(tmp_path, "ag_news", train=train, test=[("A new chip.", 3)])
    assert plain(read("ag_news", folder)) == [
        ("train:0", "train", "Shares fell.", 2),
        ("train:1", "train", "They won.", 1),
        ("validation:0", "validation", "A new chip.", 3),
    ]


SNLI: dict[str, Rows] = {
    "train": [("a", "b", 0), ("c", "d", -1), ("e", "f", 2)],
    "validation": [("g", "h", -1), ("i", "j", 1)],
    "test": [("k", "l", 1)],
}
# Two rows of QQP on the hub have an empty second question.
QQP: dict[str, Rows] = {
    "train": [("a", "", 0), ("b", "c", 1), (None, "d", 1)],
    "validation": [("e", "f", 0)],
}


@pytest.mark.parametrize(
    ("name", "splits", "reason", "left"),
    [
        ("snli", SNLI, "missing_label", ["train:0", "train:2", "validation:1"]),
        ("qqp", QQP, "empty_text", ["train:1", "validation:0"]),
    ],
)
def test_rows_without_a_label_or_a_text_are_dropped_and_counted(
    tmp_path: Path, name: str, splits: dict[str, Rows], reason: str, left: list[str]
) -> None:
    kept, dropped = clean(read(name, save(tmp_path, name, **splits)), TASKS[name])
    assert [row.id for row in kept] == left
    assert sum(dropped.values()) == dropped[reason] == 2


# --- What is not the task ---------------------------------------------------------------------


TURNED = datasets.ClassLabel(names=["not_entailment", "entailment"])
BARE = datasets.Value("int64")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"train": RTE["train"].cast_column("label", TURNED)},
            r"rte split train: its classes are \['not_entailment', 'entailment'\].* expected",
        ),
        (
            {"validation": RTE["validation"].cast_column("label", BARE)},
            "split validation: its classes are None",
        ),
        ({"validation": None}, "split validation: is missing; found: test, train"),
        *(
            (
                {"train": RTE["train"].remove_columns(column)},
                f"split train: column '{column}' is missing; found: ",
            )
            for column in ("sentence2", "label")
        ),
    ],
    ids=["classes in another order", "no names of classes", "no split", "no text", "no label"],
)
def test_a_saved_dataset_that_is_not_the_tasks(
    tmp_path: Path, changed: dict[str, datasets.Dataset | None], says: str
) -> None:
    splits = {name: split for name, split in (RTE | changed).items() if split}
    with pytest.raises(StudyError, match=says):
        read("rte", save(tmp_path, "rte", **splits))


@pytest.mark.parametrize("score", [5.5, -1.0, float("inf")])
def test_a_score_out_of_range(tmp_path: Path, score: float) -> None:
    train = [("a", "b", 1.0), ("c", "d", score)]
    folder = save(tmp_path, "stsb", train=train, validation=[("e", "f", 2.5)])
    with pytest.raises(StudyError, match=r"split train row 1: label .* is out of range"):
        read("stsb", folder)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_score_that_is_null_or_not_a_number_is_missing(
    tmp_path: Path, missing: float | None
) -> None:
    train = [("a", "b", 1.0), ("c", "d", missing), ("e", "f", 0.0)]
    folder = save(tmp_path, "stsb", train=train, validation=[("g", "h", 2.5)])
    kept, dropped = clean(read("stsb", folder), TASKS["stsb"])
    assert [row.label for row in kept] == [1.0, 0.0, 2.5]
    assert sum(dropped.values()) == dropped["missing_label"] == 1


def test_a_folder_without_the_task(tmp_path: Path) -> None:
    folder = save(tmp_path, "rte", **RTE)
    with pytest.raises(StudyError, match=r"^data\.folder: '.*' holds no saved dataset 'mrpc'"):
        hub.locate("mrpc", TASKS["mrpc"], folder, None)
    with pytest.raises(StudyError, match=r"^data\.folder: 'nowhere' holds no saved dataset 'rte'"):
        hub.locate("rte", TASKS["rte"], "nowhere", None)
    with pytest.raises(StudyError, match=r"has no task 'tweet_rating'; .*rte"):
        hub.locate("tweet_rating", TASKS["tweet_rating"], None, None)


@pytest.mark.parametrize("keep", [0, 40])
def test_a_damaged_saved_dataset(tmp_path: Path, keep: int) -> None:
    folder = save(tmp_path, "rte", **RTE)
    (arrow,) = (tmp_path / "rte/train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:keep])
    with pytest.raises(StudyError, match=r"rte: cannot be loaded \(") as caught:
        read("rte", folder)
    assert "\n" not in str(caught.value)


def test_a_saved_dataset_that_changed_since_is_not_read(tmp_path: Path) -> None:
    location = hub.locate("rte", TASKS["rte"], save(tmp_path / "data", "rte", **RTE), None)
    changed = dataset("rte", [("Others", "wrote this.", 1), ("And", "this.", 0)])
    save(tmp_path / "other", "rte", **RTE | {"train": changed})
    for file in (tmp_path / "other/rte").rglob("*.*"):
        file.replace(tmp_path / "data/rte" / file.relative_to(tmp_path / "other/rte"))
    assert hub.locate("rte", TASKS["rte"], str(tmp_path / "data"), None) != location
    with pytest.raises(StudyError, match=r"rte: changed since params\.yaml was checked"):
        list(hub.read_rows("rte", TASKS["rte"], location))


def test_the_tables_of_tasks_and_datasets_fit() -> None:
    for name, known in hub.DATASETS.items():
        task = TASKS[name]
        assert len(known.validation) == max(1, len(task.parts)), name
        assert len(known.revision) == 40
        expected = {"repo": known.repo, "revision": known.revision, "config": known.config}
        assert hub.locate(name, task, None, None) == expected


# --- The cache, without a network -------------------------------------------------------------

PINNED, OTHER = hub.DATASETS["rte"].revision, "0" * 40
READ = textwrap.dedent(
    """
    import json
    from peft_study.errors import run_command
    from peft_study.data.sources import hub
    from peft_study.data.tasks import TASKS

    def read() -> None:
        location = hub.locate("rte", TASKS["rte"], None, None)
        rows = hub.read_rows("rte", TASKS["rte"], location)
        print(json.dumps([[r.id, r.split, *r.texts, r.label] for r in rows]))

    run_command(read)
    """
)


def cache(folder: Path, revision: str, age: int = 0, damage: bool = False) -> None:
    """Write what `datasets.load_dataset` leaves in HF_DATASETS_CACHE for GLUE's RTE."""
    version = folder / "nyu-mll___glue/rte/0.0.0" / revision
    version.mkdir(parents=True)
    for name, split in RTE.items():
        # Each revision has its own texts, so that one is not taken for another.
        with ArrowWriter(features=split.features, path=str(version / f"glue-{name}.arrow")) as file:
            for row in split:
                if revision == OTHER:
                    row["sentence1"] = "another revision"
                file.write(row)
            file.finalize()
    glue = {"dataset_name": "glue"}
    splits = [
        glue | {"name": name, "num_bytes": 1, "num_examples": len(split)}
        for name, split in RTE.items()
    ]
    glue |= {"builder_name": "parquet", "config_name": "rte", "version": "0.0.0"}
    info = datasets.DatasetInfo(features=RTE["train"].features, splits=splits, **glue)
    info.write_to_directory(str(version))
    if damage:
        (version / "glue-train.arrow").write_bytes(b"")
    made = version.stat().st_mtime - age
    os.utime(version, (made, made))


def offline(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Read RTE in a process of its own: the hub's variables are read when it is imported."""
    variables = {"HF_HOME": str(folder / "home"), "HF_DATASETS_CACHE": str(folder / "cache")}
    variables |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", READ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("later", [False, True])
def test_the_pinned_revision_is_read_without_a_network(tmp_path: Path, later: bool) -> None:
    """Also where the cache holds a later one."""
    cache(tmp_path / "cache", PINNED, age=1000 if later else 0)
    if later:
        cache(tmp_path / "cache", OTHER)
    result = offline(tmp_path)
    assert result.returncode == 0, result.stderr
    assert [tuple(row) for row in json.loads(result.stdout)] == RTE_ROWS


@pytest.mark.parametrize(
    ("held", "says"),
    [
        pytest.param(
            {"revision": OTHER}, f"the cache holds revision {OTHER} only", id="another revision"
        ),
        pytest.param({}, r"cannot be loaded \(.*connect to the hub once", id="nothing"),
        pytest.param({"revision": PINNED, "damage": True}, r"cannot be loaded \(", id="damaged"),
    ],
)
def test_a_cache_that_is_not_enough(tmp_path: Path, held: dict[str, Any], says: str) -> None:
    if held:
        cache(tmp_path / "cache", **held)
    result = offline(tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: dataset nyu-mll/glue (rte) at {PINNED[:12]}: ")
    assert re.search(says, line)


def test_a_repository_without_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the hub's libraries raise becomes one line that names the dataset."""

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("BuilderConfig 'rte' not found.\nAvailable: ['ax']")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    location = hub.locate("rte", TASKS["rte"], None, None)
    with pytest.raises(StudyError, match=r"\(BuilderConfig 'rte' not found\.\)") as caught:
        list(hub.read_rows("rte", TASKS["rte"], location))
    assert "\n" not in str(caught.value)
