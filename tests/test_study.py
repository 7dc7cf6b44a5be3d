"""Mistakes in params.yaml: one line that names the key, the value and what is allowed."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, refusal
from peft_study.data.tasks import Task
from peft_study.errors import StudyError
from peft_study.study import check_study, load_study

Params = dict[str, Any]
SetKey = Callable[[Params, str, Any], None]

FILES = {"train": "a.tsv", "validation": "b.tsv", "texts": ["text"], "label": "label"}
SWEEP = {"task": "movie_polarity", "alpha": 16, "ranks": [1], "weights": ["query"]}

# key, value, what the message must name beside the key
MISTAKES: list[tuple[str, Any, tuple[str, ...]]] = [
    ("lora.r", 0, ("got 0", "greater than or equal to 1")),
    ("lora.r", -3, ("got -3", "greater than or equal to 1")),
    ("lora.r", "8", ("got '8'", "valid integer")),
    ("lora.r", 2.5, ("got 2.5", "valid integer")),
    ("lora.r", True, ("got True", "valid integer")),
    ("lora.r", 385, ("got 385", "at most 384", "minilm")),
    ("lora.alpha", 0, ("got 0", "greater than 0")),
    ("lora.alpha", math.nan, ("got nan", "finite number")),
    ("lora.alpha", math.inf, ("got inf", "finite number")),
    ("lora.dropout", 1.0, ("got 1.0", "less than 1")),
    ("lora.targets", [], ("got []", "at least 1 item")),
    ("lora.targets", ["query", "query"], ("'query' is repeated",)),
    ("lora.learning_rate", "fast", ("got 'fast'", "valid number")),
    ("lora.rank", 8, ("unknown key", "known: adam_beta2")),
    ("lora.alhpa", 8, ("unknown key", "did you mean 'alpha'?")),
    ("lora", None, ("got None", "mapping")),
    ("adapter_h.bottleneck", 0, ("got 0", "greater than or equal to 1")),
    ("adapter_h.bottleneck", 1000, ("got 1000", "at most 384")),
    ("adapter_h.activation", "sin", ("got 'sin'", "'gelu'")),
    ("full_ft.save_weights", "no", ("got 'no'", "valid boolean")),
    ("seeds", [], ("got []", "at least 1 item")),
    ("seeds", [1, 2, 1], ("1 is repeated",)),
    ("seeds", [2**64], ("got 18446744073709551616", "less than 4294967296")),
    ("seeds", 5, ("got 5", "valid list")),
    ("methods", [], ("got []", "at least 1 item(s) long unless there is a sweep")),
    ("methods", ["lroa"], ("got 'lroa'", "did you mean 'lora'?", "full_ft")),
    ("methods", ["lora", "lora"], ("'lora' is repeated",)),
    ("tasks", {}, ("got {}", "at least 1 item")),
    ("tasks.movie_polarty", {"validation_rows": 9}, ()),
    ("tasks.movie_polarity.epoch", 3, ("unknown key", "did you mean 'epochs'?")),
    ("tasks.movie_polarity.epochs", 0, ("got 0", "greater than or equal to 1")),
    ("tasks.movie_polarity.validation_rows", 1, ("got 1", "greater than or equal to 2")),
    ("mnli_init.mode", "always", ("got 'always'", "'per_method', 'full_ft' or 'none'")),
    ("mnli_init.task", "mnil", ("got 'mnil'", "known:")),
    ("mnli_init.tasks", ["rte"], ("got 'rte'", "known:", "tweet_rating")),
    ("train.head", "cut", ("got 'cut'", "'trained' or 'frozen'")),
    ("train.report", "median", ("got 'median'", "'best' or 'last'")),
    ("train.warmup_ratio", 1.5, ("got 1.5", "less than 1")),
    ("train.batch_size", None, ("got None", "valid integer")),
    ("model.name", "no/such/folder", ("no such folder", "minilm")),
    ("model.name", "", ("got ''", "not empty")),
    ("tasks", {1: {"validation_rows": 9}}, ("got 1", "valid string")),
    ("model.max_length", 4, ("got 4", "greater than or equal to 8")),
    ("model.max_length", 513, ("got 513", "less than or equal to 512")),
    ("data.source", "glue", ("got 'glue'", "'opinions', 'files' or 'hub'")),
    ("data.source", "files", ("data.folder", "is empty", "needs the folder")),
    ("data.source", "hub", ("has no task 'movie_polarity'", "known: ag_news")),
    ("data.folder", "data/glue", ("got 'data/glue'", "must be empty for data.source 'opinions'")),
    ("data.resample", "per_run", ("got 'per_run'", "'none' or 'per_seed'")),
    ("data.resample", None, ("got None", "'none' or 'per_seed'")),
    ("model.revision", "main", ("got 'main'", "40 hexadecimal digits")),
    ("model.name", "some/model", ("model.revision: is empty", "some/model", "40 hexadecimal")),
    ("tasks.tweet_rating.max_length", 7, ("got 7", "greater than or equal to 8")),
    ("tasks.tweet_rating.files", FILES | {"texts": []}, ("texts: got []", "at least 1 item")),
    (
        "tasks.tweet_rating.files",
        FILES | {"sep": ","},
        ("sep: unknown key", "known: columns, label"),
    ),
    ("tasks.tweet_rating.files", FILES, ("data.source is 'opinions'; must be 'files'",)),
    ("sweep.ranks", [8], ("only one has items; name both",)),
    ("mnli_init.task", "editorial_polarity", ("mnli_init.tasks", "is the intermediate task")),
    ("data.folder", "a" * 300, ("at most 200 characters long",)),
    ("sweep.ranks", [0], ("got 0", "greater than or equal to 1")),
    ("sweep", SWEEP | {"ranks": [8, 8]}, ("8 is repeated",)),
    ("sweep", SWEEP | {"ranks": [500]}, ("got 500", "at most 384")),
    ("sweep", SWEEP | {"weights": ["query+quary"]}, ("got 'quary'", "did you mean 'query'?")),
    ("sweep", SWEEP | {"weights": ["key+query", "query+key"]}, ("'key+query' is repeated",)),
    ("sweep", SWEEP | {"weights": ["key+key"]}, ("'key' is repeated",)),
    ("sweep", SWEEP | {"task": "rte"}, ("got 'rte'", "known: editorial_polarity")),
    ("sweep", SWEEP | {"task": "editorial_polarity"}, ("starts from the encoder",)),
    ("analysis.iso_margin", 1, ("got 1", "less than 1")),
    ("analysis.equivalence_margin", 0, ("got 0", "greater than 0")),
    ("analysis.published", ["hu2021 table 9"], ("got 'hu2021 table 9'", "hu2021 table 2")),
    ("profile.rounds", -1, ("got -1", "greater than or equal to 0")),
    ("profile.rounds", 1, ("got 1", "must be 0, or at least 2")),
    ("profile.ranks", [], ("got []", "at least 1 item")),
    ("profile.ranks", [8, 8], ("8 is repeated",)),
    ("profile.ranks", [500], ("got 500", "at most 384")),
    ("profile.targets", ["key", "key"], ("'key' is repeated",)),
    ("profile.bottleneck", 1000, ("got 1000", "at most 384")),
    ("profile.tasks", ["rte"], ("got 'rte'", "known: editorial_polarity")),
    ("profile.tasks", [], ("got []", "at least 1 item")),
    ("profile.tasks", ["movie_polarity"] * 2, ("'movie_polarity' is repeated",)),
    ("sweep.task", "rte", ("got 'rte'", "known: editorial_polarity")),
    ("profile.assumed_watts", 0, ("got 0", "greater than 0")),
    ("train.gradient_accumulation_steps", 0, ("got 0", "greater than or equal to 1")),
    ("train.adam_beta2", 1.0, ("got 1.0", "less than 1")),
    ("train.adam_epsilon", 0, ("got 0", "greater than 0")),
    ("full_ft.adam_epsilon", -1.0, ("got -1.0", "greater than 0")),
    ("train.schedule", "cosine", ("got 'cosine'", "'linear' or 'constant'")),
    ("lora.init_std", 0, ("got 0", "greater than 0")),
    ("mnli_init.head", "trained", ("got 'trained'", "'fresh' or 'kept'")),
    ("only", {"lroa": {"seeds": [1]}}, ("got 'lroa'", "did you mean 'lora'?")),
    (
        "only.lora",
        {"tasks": ["rte"]},
        ("only.lora.tasks", "got 'rte'", "known: editorial_polarity"),
    ),
    ("only.lora", {"tasks": []}, ("only.lora.tasks", "got []", "at least 1 item")),
    ("only.lora", {"seeds": [-1]}, ("only.lora.seeds.0", "got -1", "greater than or equal to 0")),
    ("only.lora", {"seeds": [7, 7]}, ("only.lora.seeds", "7 is repeated")),
    ("only.lora", {"seed": [7]}, ("unknown key", "did you mean 'seeds'?")),
    ("runner.workers", "many", ("got 'many'", "valid integer or 'auto'")),
    ("study", "My Study", ("got 'My Study'", "lower-case")),
]


@pytest.mark.parametrize(("key", "value", "named"), MISTAKES)
def test_mistake_is_one_line(
    params: Params, set_key: SetKey, key: str, value: Any, named: tuple[str, ...]
) -> None:
    set_key(params, key, value)
    message = refusal(params)
    assert key.rpartition(".")[0] in message
    for part in (*named, key if named else "did you mean 'movie_polarity'?"):
        assert part in message


def test_an_intermediate_task_that_nothing_starts_from_is_not_checked(params: Params) -> None:
    """`-S mnli_init.mode=none` need not empty the list of tasks."""
    params["mnli_init"] |= {"mode": "none", "tasks": ["rte"]}
    assert check_study(params).starters == []


def test_unknown_weight_names_the_known_ones(params: Params) -> None:
    params["lora"]["targets"] = ["query", "quary"]
    with pytest.raises(StudyError, match=r"lora\.targets\.1: got 'quary'; must be 'query', 'key'"):
        check_study(params)


@pytest.mark.parametrize("key", ["seeds", "lora", "runner", "study"])
def test_missing_key(params: Params, key: str) -> None:
    del params[key]
    with pytest.raises(StudyError, match=f"{key}: is missing"):
        check_study(params)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"lora: [1", "line 1: not valid YAML"),
        (b"study: a\nstudy: b\n", "line 2: not valid YAML"),
        (b"study: caf\xe9\n", "not UTF-8"),
        (b"- 1\n", "must hold a mapping"),
        (b"study: 2024-13-45\n", "cannot be read"),
        (b"", "must hold a mapping"),
    ],
)
def test_unreadable_file(tmp_path: Path, text: bytes, named: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(StudyError, match=named) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    """`-S lora.learning_rate=1e-5` makes DVC write 1e-05, which YAML 1.1 reads as a string."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text().replace("learning_rate: 2e-4", "learning_rate: 1e-05")
    path.write_text(text)
    assert load_study(path).full_ft.learning_rate == 1e-5


def test_the_most_specific_hyperparameter_wins(params: Params) -> None:
    params["train"]["epochs"] = 1
    params["lora"]["epochs"] = 2
    params["tasks"]["tweet_rating"] |= {"epochs": 3, "lora": {"epochs": 4}}
    study = check_study(params)
    epochs = {
        (method, task): study.hyperparameters(method, study.tasks[task]).epochs
        for method in ("full_ft", "peft_lora")
        for task in ("movie_polarity", "tweet_rating")
    }
    assert epochs == {
        ("full_ft", "movie_polarity"): 1,
        ("peft_lora", "movie_polarity"): 2,
        ("full_ft", "tweet_rating"): 3,
        ("peft_lora", "tweet_rating"): 4,
    }


def test_the_head_that_starters_keep_is_not_the_head_of_the_intermediate_run(
    params: Params,
) -> None:
    params["mnli_init"] |= {"head": "kept", "lora": {"head": "frozen"}}
    study = check_study(params)
    heads = {m: study.hyperparameters(m, study.mnli_init).head for m in ("lora", "full_ft")}
    assert heads == {"lora": "frozen", "full_ft": "trained"}


def test_a_task_of_ones_own_is_defined_by_its_files(params: Params) -> None:
    params["data"] |= {"source": "files", "folder": "somewhere"}
    params["mnli_init"] |= {"mode": "none", "tasks": []}
    params["tasks"] = {
        "mine": {"files": FILES | {"texts": ["a", "b"], "labels": ["no", "yes", "maybe"]}},
        "score": {"files": FILES},
        "stsb": {"files": FILES},
        "mrpc": {"files": FILES},
    }
    params["sweep"]["task"], params["profile"]["tasks"] = "mine", ["mine"]
    study = check_study(params)
    defined = {name: study.task_definition(name, task) for name, task in study.tasks.items()}
    macro = "accuracy", "precision_macro", "recall_macro", "f1_macro"
    assert defined["mine"] == Task(("a", "b"), ("no", "yes", "maybe"), macro)
    assert defined["score"] == Task(("text",), None, ("pearson", "spearman"))
    assert defined["stsb"].score_range == (0.0, 5.0)
    assert defined["mrpc"].metrics == ("accuracy", "precision", "recall", "f1")
    params["tasks"]["my-task"] = {"files": FILES}
    with pytest.raises(StudyError, match=r"tasks\.my-task: got 'my-task'; must be lower-case"):
        check_study(params)


def one_task(params: Params, files: dict[str, Any], name: str = "mine") -> Params:
    """Return parameters of a study of one task in files of one's own."""
    params["data"] |= {"source": "files", "folder": "somewhere"}
    params["mnli_init"] |= {"mode": "none", "tasks": []}
    params["tasks"] = {name: {"files": FILES | files}}
    params["sweep"]["task"], params["profile"]["tasks"] = name, [name]
    return params


TWO = {"labels": ["no", "yes"]}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        # A label that is a text makes every task trivial.
        ({"label": "text"}, ["label: got 'text', which is a text too"]),
        ({"texts": ["a", "b"], "label": "b"}, ["label: got 'b', which is a text too"]),
        ({"texts": [2, 3], "label": 3}, ["label: got 3, which is a text too"]),
        ({"texts": ["n\u00e9"], "label": "ne\u0301"}, ["which is a text too"]),
        ({"texts": [" text"]} | {"label": "text"}, ["which is a text too"]),
        ({"texts": ["a", 2], "label": 3}, ["texts, label: got ['a', 2, 3]; must be all names, or"]),
        ({"texts": [1], "label": "label"}, ["got [1, 'label']; must be all names, or all numbers"]),
        ({"texts": [1], "label": 2, "columns": ["a", "b"]}, ["columns: must be left out where"]),
        ({"columns": ["txt", "label"]}, ["columns: have no 'text'; did you mean 'txt'?"]),
        ({"columns": ["text", "label", "text"]}, ["columns: 'text' is repeated"]),
        ({"texts": [0], "label": 1}, ["texts.0: got 0; must be a valid string or greater than or"]),
        ({"texts": [2, 2], "label": 1}, ["texts: '2' is repeated"]),
        ({"labels": ["n\u00e9", "ne\u0301"]}, ["labels: 'n\u00e9' is repeated"]),
        ({"labels": ["yes", " yes"]}, ["labels: 'yes' is repeated"]),
        ({"labels": ["yes", " "]}, ["labels: got ' '; must not be blank"]),
        ({"labels": ["yes", "\u200b"]}, ["labels: got '\\u200b'; must not be blank"]),
    ],
)
@pytest.mark.parametrize("intermediate", [False, True])
def test_columns_and_labels_that_contradict_one_another(
    params: Params, files: dict[str, Any], says: list[str], intermediate: bool
) -> None:
    values = one_task(params, TWO if intermediate else TWO | files)
    if intermediate:
        values["mnli_init"]["files"] = FILES | TWO | files
    with pytest.raises(StudyError) as caught:
        check_study(values)
    message = str(caught.value)
    assert "\n" not in message
    key = "mnli_init" if intermediate else "tasks.mine"
    assert message.startswith(f"params.yaml: {key}.files.")
    assert all(part in message for part in says)


def test_columns_by_number_or_by_names_of_ones_own(params: Params) -> None:
    for files in (
        {"texts": [2, 3], "label": 1},
        {"texts": ["b", "c"], "label": "a", "columns": ["a", "b", "c"]},
    ):
        study = check_study(one_task(params, TWO | files))
        assert len(study.task_definition("mine", study.tasks["mine"]).texts) == 2


@pytest.mark.parametrize(("letters", "allowed"), [(100, True), (101, False), (245, False)])
def test_a_name_of_a_task_must_fit_names_of_files(
    params: Params, letters: int, allowed: bool
) -> None:
    values = one_task(params, TWO, "a" * letters)
    if allowed:
        assert list(check_study(values).tasks) == ["a" * letters]
        return
    with pytest.raises(StudyError, match="must be lower-case letters, digits and '_', at most 100"):
        check_study(values)


def test_command_exits_with_2_and_writes_nothing(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  r: 8", "  r: 0")
    (tmp_path / "params.yaml").write_text(text)
    for command in (["-m", "peft_study.presets", "check"], [str(ROOT / "stages/configure.py")]):
        result = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        says = "error: params.yaml: lora.r: got 0; must be greater than or equal to 1\n"
        assert (result.returncode, result.stderr) == (2, says)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_what_only_says_of_a_method_that_is_left_out_does_not_matter(params: Params) -> None:
    """`-S methods=[lora]` is no mistake because the study has told what another one is for."""
    params["only"] = {"loralib_lora": {"tasks": ["rte"]}}
    assert check_study(params).methods == ["lora", "peft_lora", "adapter_h", "full_ft"]
