"""Rehearsals: every study made small, some of them run to their page, and the forecast."""

import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from peft_study import presets
from peft_study.configure import configure
from peft_study.data.sources import tables
from peft_study.data.tasks import TASKS, Task
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.own_files import FilesParams
from peft_study.rehearsal.__main__ import rehearse, summary
from peft_study.rehearsal.forecast import Timed
from peft_study.rehearsal.rows import ROWS, write_files, write_rows
from peft_study.rehearsal.small import write_small
from peft_study.study import load_study

# What makes a rehearsal small.
CHANGED = {"rehearsal", "name", "revision", "folder", "seeds", "epochs", "train_rows", "rounds"}
CHANGED |= {"validation_rows", "backend", "workers", "leave_out"}
# One of each kind: files, and tasks that start from an intermediate one; the hub, a sweep alone.
KINDS = ("minilm_glue", "chu_table3")


@pytest.mark.parametrize("name", presets.names())
def test_a_rehearsal_is_the_study_but_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = presets.load(name)
    write_small(name, tmp_path / "small")
    monkeypatch.chdir(tmp_path / "small")
    small = load_study()
    assert _rest(small.model_dump()) == _rest(study.model_dump())
    assert (small.rehearsal, len(small.seeds)) == (True, 2)
    found = [
        small.hyperparameters(method, task).epochs
        for method in (*small.methods, "lora")
        for task in small.tasks.values()
    ]
    assert set(found) == {2}
    configs = configure(small)
    assert vars(configs["report"])["rehearsal"] is True


@pytest.mark.parametrize("name", ["mnli", "stsb", "ag_news"])
def test_made_up_rows_have_the_form_of_the_hubs(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    write_rows(name, task, tmp_path / "one")
    write_rows(name, task, tmp_path / "two")
    one, two = (datasets.load_from_disk(str(tmp_path / at / name)) for at in ("one", "two"))
    assert one["train"].to_list() == two["train"].to_list()
    assert len(one["train"]) == ROWS["train"]
    labels = set(one["train"]["label"])
    if task.labels:
        assert one["train"].features["label"].names == list(task.labels)
        assert labels == set(range(len(task.labels)))
    else:
        assert task.score_range == (min(labels), max(labels))


@pytest.mark.parametrize(
    "described",
    [
        {"texts": ["a", "b"], "label": "c"},
        {"texts": [4, 2], "label": 1},
        {"texts": ["a", "n\u00e9"], "label": "c", "columns": ["c", "ne\u0301", "x", "a"]},
    ],
)
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt"])
def test_made_up_files_are_as_they_are_described(
    tmp_path: Path, described: dict[str, Any], suffix: str
) -> None:
    names = {"train": f"train{suffix}", "validation": f"dev{suffix}", "labels": ["no", "yes"]}
    files = FilesParams.model_validate(names | described)
    task = Task(tuple(map(str, files.texts)), ("no", "yes"), ("accuracy",))
    write_files("own", task, files, tmp_path)
    location = tables.locate("own", task, str(tmp_path), files.model_dump())
    rows = list(tables.read_rows("own", task, location))
    assert len(rows) == sum(ROWS.values())
    assert {row.label for row in rows} == {0, 1}
    assert all(len(set(row.texts)) == 2 for row in rows)


def test_what_cannot_be_made_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = presets.values("chu_table1")
    values["model"] |= {"name": "somebody/unknown", "revision": "0" * 40}
    monkeypatch.setattr(presets, "values", lambda name: values)
    with pytest.raises(StudyError, match=r"model\.name: 'somebody/unknown' is not at hand"):
        write_small("chu_table1", tmp_path / "small")


def test_a_forecast_lies_on_the_line_through_two_depths() -> None:
    shallow, deep = (
        Timed(1.0, 2.0, 0.5, 10.0, 100.0, 7.0, 7.0),
        Timed(2.0, 4.0, 0.5, 20.0, 140.0, 9.0, 9.0),
    )
    assert shallow.at(1, deep, 3, 11) == Timed(6.0, 12.0, 0.5, 60.0, 300.0, 17.0, 17.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_study_is_rehearsed_to_its_page(
    name: str, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft_study.rehearsal.__main__.HOME", tmp_path)
    monkeypatch.setattr("sys.executable", str(programs / "python"))
    outcome = rehearse(name)
    assert outcome.error is None, outcome
    size = presets.describe(presets.load(name))
    counts = re.match(r"about ([\d,]+) runs with ([\d,]+) steps in all, ", outcome.forecast)
    assert counts
    runs, steps = (int(count.replace(",", "")) for count in counts.groups())
    assert (runs, steps) == (size["runs"], size["steps"])
    folder = tmp_path / name
    page = (folder / "plots/report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<caption[^>]*><span>(.*?)</span>", page)
    titles = [figure["title"] for figure in read_json(folder / "plots/figures.json")]
    assert captions
    assert titles
    assert all(text.startswith("Rehearsal") for text in (*captions, *titles))
    assert all(text.startswith("Rehearsal") for text in _texts(folder / "metrics/tables"))
    assert name in summary([outcome])


def _rest(values: object) -> object:
    if isinstance(values, dict):
        kept = (key for key in values if str(key).rpartition(".")[2] not in CHANGED)
        return {key: _rest(values[key]) for key in kept}
    return values


def _texts(folder: Path) -> list[str]:
    found = [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]
    assert found
    return found
