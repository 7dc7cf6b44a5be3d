"""Mistakes in params.yaml: one line that names the key, the value and what is allowed."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from peft_study.configure import configure
from peft_study.errors import StudyError
from peft_study.study import check_study, load_study

SetKey = Callable[[dict[str, Any], str, Any], None]

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
    ("lora.rank", 8, ("unknown key", "known: alpha")),
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
    ("methods", [], ("got []", "at least 1 item")),
    ("methods", ["lroa"], ("got 'lroa'", "did you mean 'lora'?", "full_ft")),
    ("methods", ["lora", "lora"], ("'lora' is repeated",)),
    ("tasks", {}, ("got {}", "at least 1 item")),
    ("tasks.movie_polarty", {"validation_rows": 9}, ()),
    ("tasks.movie_polarity.epoch", 3, ("unknown key", "did you mean 'epochs'?")),
    ("tasks.movie_polarity.epochs", 0, ("got 0", "greater than or equal to 1")),
    ("tasks.movie_polarity.validation_rows", 1, ("got 1", "greater than or equal to 2")),
    ("mnli_init.mode", "always", ("got 'always'", "'per_method' or 'none'")),
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
    ("data.source", "glue", ("got 'glue'", "'opinions'")),
    ("runner.workers", "many", ("got 'many'", "valid integer or 'auto'")),
    ("study", "My Study", ("got 'My Study'", "lower-case")),
]


@pytest.mark.parametrize(("key", "value", "named"), MISTAKES)
def test_mistake_is_one_line(
    params: dict[str, Any], set_key: SetKey, key: str, value: Any, named: tuple[str, ...]
) -> None:
    set_key(params, key, value)
    with pytest.raises(StudyError) as caught:
        configure(check_study(params))
    message = str(caught.value)
    assert "\n" not in message
    assert key.rpartition(".")[0] in message
    for part in (*named, key if named else "did you mean 'movie_polarity'?"):
        assert part in message


def test_unknown_weight_names_the_known_ones(params: dict[str, Any]) -> None:
    params["lora"]["targets"] = ["query", "quary"]
    with pytest.raises(StudyError, match=r"lora\.targets\.1: got 'quary'; must be 'query', 'key'"):
        check_study(params)


@pytest.mark.parametrize("key", ["seeds", "lora", "runner", "study"])
def test_missing_key(params: dict[str, Any], key: str) -> None:
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
    text = (ROOT / "params.yaml").read_text().replace("learning_rate: 1e-4", "learning_rate: 1e-05")
    path.write_text(text)
    assert load_study(path).full_ft.learning_rate == 1e-5


def test_the_most_specific_hyperparameter_wins(params: dict[str, Any]) -> None:
    params["train"]["epochs"] = 1
    params["lora"]["epochs"] = 2
    params["tasks"]["tweet_rating"] |= {"epochs": 3, "lora": {"epochs": 4}}
    study = check_study(params)
    epochs = {
        (method, task): study.hyperparameters(method, study.tasks[task])["epochs"]
        for method in ("full_ft", "peft_lora")
        for task in ("movie_polarity", "tweet_rating")
    }
    assert epochs == {
        ("full_ft", "movie_polarity"): 1,
        ("peft_lora", "movie_polarity"): 2,
        ("full_ft", "tweet_rating"): 3,
        ("peft_lora", "tweet_rating"): 4,
    }


def test_command_exits_with_2_and_writes_nothing(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  r: 8", "  r: 0")
    (tmp_path / "params.yaml").write_text(text)
    for arguments in ([], ["--check"]):
        result = subprocess.run(
            [sys.executable, ROOT / "stages/configure.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2
        assert result.stderr == (
            "error: params.yaml: lora.r: got 0; must be greater than or equal to 1\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
