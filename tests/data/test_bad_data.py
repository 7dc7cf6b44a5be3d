"""Data and models that cannot be used: one line that says which, and nothing overwritten."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from conftest import ROOT, small_model
from peft_study.data.sources import opinions
from peft_study.encoders.pretrained import model_folder

pytestmark = pytest.mark.slow

WORDS = ("apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer")
TEXTS = [f"the {a} and the {b}" for a in WORDS for b in WORDS if a != b]
LABELS = ("bad", "good")
MARKER = "what an earlier run wrote\n"

Params = dict[str, Any]
Mistake = Callable[[Params, Path], Any]


def table(texts: list[str]) -> list[tuple[str, str]]:
    return [(text, LABELS[i % 2]) for i, text in enumerate(texts)]


TRAIN, HELD_OUT = table(TEXTS[:24]), table(TEXTS[24:44])


def tsv(rows: list[tuple[Any, ...]], header: str = "text\tlabel") -> str:
    return "\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n"


def records(rows: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in rows]


def jsonl(rows: list[tuple[Any, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in records(rows))


def study(folder: Path) -> Params:
    """Return parameters of a study of one task, `own`, in files of one's own in `folder`/data."""
    values: Params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    values["model"] |= {"name": "minilm", "revision": None}
    values["data"] |= {"source": "files", "folder": "data"}
    values["methods"] = ["lora"]
    values["lora"]["r"] = values["adapter_h"]["bottleneck"] = 4
    values["profile"] |= {"ranks": [4], "bottleneck": 4}
    values["mnli_init"] |= {"mode": "none", "task": "mnli", "tasks": []}
    files = {"train": "train.tsv", "validation": "dev.tsv", "texts": ["text"], "label": "label"}
    values["tasks"] = {"own": {"files": files | {"labels": list(LABELS)}}}
    data = folder / "data"
    data.mkdir()
    (data / "train.tsv").write_text(tsv(TRAIN), encoding="utf-8")
    (data / "dev.tsv").write_text(tsv(HELD_OUT), encoding="utf-8")
    return values


def case(name: str, make: Mistake, *says: str, between: Callable[[Path], Any] | None = None) -> Any:
    """Return a case: a mistake, and what the line about it has to say.

    Args:
        name: what is wrong.
        make: makes the mistake, in parameters, or in files below the study's folder.
        says: parts of the error's line: the file or the key, the line, what is wrong.
        between: makes the mistake after `configure`, if `make` does not.
    """
    return pytest.param(make, says, between, id=name)


def put(name: str, content: str | bytes) -> Mistake:
    """Return a mistake: the contents of a file below the study's folder."""
    whole = content.encode() if isinstance(content, str) else content
    return lambda _, folder: (folder / "data" / name).write_bytes(whole)


def line(number: int, content: str, rows: list[tuple[str, str]] = TRAIN) -> str:
    """Return a file of which one line, counted from 1, is another one."""
    lines = tsv(rows).split("\n")
    lines[number - 1] = content
    return "\n".join(lines)


def mapped(**change: Any) -> Mistake:
    """Return a mistake in the names of files and columns."""
    return lambda values, _: values["tasks"]["own"]["files"].update(change)


def both(*makes: Mistake) -> Mistake:
    return lambda values, folder: [one(values, folder) for one in makes]


def keyed(key: str, value: Any) -> Mistake:
    """Return a mistake in a dotted key of the parameters."""

    def make(values: Params, _: Path) -> None:
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return make


def sourced(source: str, task: str | None = None, folder: str | None = None) -> Mistake:
    """Return a study of another source, of one task, unless it keeps its own."""

    def make(values: Params, _: Path) -> None:
        values["data"] |= {"source": source, "folder": folder}
        values["tasks"] = {task: {}} if task else values["tasks"]

    return make


def glue(name: str, **contents: str) -> Mistake:
    """Return a study of a task of GLUE's, with these files."""

    def make(values: Params, folder: Path) -> None:
        values["tasks"] = {name.lower().replace("-", ""): {}}
        (folder / "data" / name).mkdir()
        for file, content in contents.items():
            (folder / f"data/{name}/{file}.tsv").write_text(content)

    return make


def scores(*train: tuple[str, Any]) -> Mistake:
    """Return a study of STS-B, scored from 0 to 5, with these rows first in its training file."""
    good = [(text, i % 6) for i, (text, _) in enumerate(TRAIN)]
    contents = {}
    for name, rows in (("train", [*train, *good]), ("dev", good)):
        lines = [(text, "another text", score) for text, score in rows]
        contents[name] = tsv(lines, "sentence1\tsentence2\tscore")
    return glue("STS-B", **contents)


def train(content: str | bytes, name: str = "train.tsv") -> Mistake:
    """Return a study of another training file, which may be of another kind."""
    return both(mapped(train=name), put(name, content))


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


GOOD, NEXT = jsonl(TRAIN), len(TRAIN) + 1
TABLE = pa.table({"text": [text for text, _ in TRAIN], "label": [label for _, label in TRAIN]})
NO_UTF_8 = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
NO_PARQUET = "data/train.parquet: cannot be read as Parquet"
RTE = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"

# What is wrong, a line of the training file, what stands there instead, what is said of it.
LINES = [
    ("a field too many", 7, "one\ttoo many\tgood", "3 fields, expected 2"),
    ("unknown label", 5, "a text\tgreat", "unknown label 'great'; known: bad, good"),
    ("class label out of range", 6, "a text\t2", "unknown label '2'"),
    ("negative class label", 6, "a text\t-2", "unknown label '-2'"),
    ("label in other letters", 6, "a text\tGood", "unknown label 'Good'; known: bad, good"),
    ("empty sentence", 4, "\tgood", "a text is empty"),
    ("sentence of spaces", 4, " \u00a0 \tgood", "a text is empty"),
]
# What is wrong, the first scores of STS-B's training file, what is said of which line.
SCORES: list[tuple[str, list[tuple[str, Any]], str]] = [
    ("score out of range", [("a", 5.5)], "line 2: score '5.5' is not a finite number from 0 to 5"),
    ("score not a number", [("a", "four")], "line 2: score 'four' is no number"),
    ("score with a decimal comma", [("a", "4,5")], "line 2: score '4,5' is no number"),
]
# What is wrong, a training file of JSON Lines, what is said of which line.
JSON = [
    ("broken JSON", GOOD + '{"text": "a", "label": \n', f"{NEXT}: not valid JSON"),
    ("JSON too deep", GOOD + "[" * 200_000 + "\n", f"{NEXT}: not valid JSON"),
    ("JSON key missing", GOOD + '\n{"text": "a"}\n', f"{NEXT + 1}: 'label' is missing"),
    ("JSON list instead of lines", json.dumps(records(TRAIN)), "1: must hold a JSON object"),
    ("text not a string", jsonl([*TRAIN[:2], (7, "good")]), "3: the text 7 is not a string"),
    ("text null", jsonl([(None, "good")]), "1: the text None is not a string"),
]
FILES = [
    *(
        case(name, train(content, "train.jsonl"), f"data/train.jsonl line {says}")
        for name, content, says in JSON
    ),
    *(
        case(name, train(line(number, text)), f"data/train.tsv line {number}: {says}")
        for name, number, text, says in LINES
    ),
    *(case(name, scores(*rows), f"data/STS-B/train.tsv {says}") for name, rows, says in SCORES),
    case("missing folder", keyed("data.folder", "nowhere"), "data.folder", "'nowhere'"),
    case("no folder named", keyed("data.folder", None), "data.folder: is empty"),
    case("a file for a folder", keyed("data.folder", "params.yaml"), "data.folder", "no such"),
    case("missing file", mapped(train="other.tsv"), "data/other.tsv: no such file"),
    case(
        "missing file of GLUE's", glue("RTE", train=RTE), "data/RTE/dev.tsv: no such file", "'rte'"
    ),
    case(
        "wrong text column",
        mapped(texts=["sentence"]),
        "data/train.tsv line 1: column 'sentence' is missing; found: text, label",
    ),
    case(
        "wrong label column",
        mapped(label="gold"),
        "data/train.tsv line 1: column 'gold' is missing",
    ),
    case(
        "columns missing from one file only",
        put("dev.tsv", tsv(HELD_OUT, "txt\tlabel")),
        "data/dev.tsv line 1: column 'text' is missing; found: txt, label",
    ),
    case(
        "duplicate column",
        train(tsv([(*row, "x") for row in TRAIN], "text\tlabel\ttext")),
        "data/train.tsv line 1: column 'text' is there more than once",
    ),
    case(
        "a field missing",
        put("dev.tsv", line(3, "no label at all", HELD_OUT)),
        "data/dev.tsv line 3: 1 fields, expected 2",
    ),
    case(
        "text in Parquet that is not UTF-8",
        train(parquet(pa.table({"text": NO_UTF_8, "label": LABELS})), "train.parquet"),
        NO_PARQUET,
    ),
    case(
        "indices where labels are named otherwise",
        both(mapped(labels=["1.0", "0.0"]), train(line(2, "a text\t0"))),
        "data/train.tsv line 2: unknown label '0'; known: 1.0, 0.0",
    ),
    case(
        "score infinite",
        both(mapped(labels=None), train(tsv([("a", 1), ("b", "-inf")]))),
        "data/train.tsv line 3: score '-inf' is not a number from -1e+12 to 1e+12; divide",
    ),
    case(
        "not UTF-8 behind a byte order mark",
        train(b"\xef\xbb\xbftext\tlabel\na b\tgood\n\xff\tbad\n"),
        "data/train.tsv line 3: is not UTF-8 text",
    ),
    case(
        "invalid UTF-8",
        train(tsv(TRAIN).encode() + b"caf\xe9\tgood\n"),
        f"data/train.tsv line {NEXT + 1}: is not UTF-8 text",
    ),
    case("UTF-16", train(tsv(TRAIN).encode("utf-16")), "data/train.tsv line 1: is not UTF-8 text"),
    case("empty file", train(""), "data/train.tsv: is empty"),
    case("empty JSON Lines file", train("\n\n", "train.jsonl"), "data/train.jsonl: is empty"),
    case("header only", put("dev.tsv", "text\tlabel\n"), "data/dev.tsv: holds no rows"),
    case(
        "JSON key missing from all",
        train('{"label": "good"}\n', "train.jsonl"),
        "data/train.jsonl line 1: column 'text' is missing; found: label",
    ),
    case(
        "half a character",
        train(GOOD + '{"text": "a \\ud83d b", "label": "good"}\n', "train.jsonl"),
        f"data/train.jsonl line {NEXT}: ",
        "text",
    ),
    case(
        "CSV quote not closed",
        train('text,label\na,good\n"b,bad\n', "train.csv"),
        "data/train.csv line ",
        "unexpected end of data",
    ),
    case(
        "CSV with semicolons",
        train("text;label\na;good\n", "train.csv"),
        "data/train.csv line 1: column 'text' is missing; found: text;label",
    ),
    case("truncated Parquet", train(parquet(TABLE)[:-30], "train.parquet"), NO_PARQUET),
    case("Parquet in name only", train(tsv(TRAIN), "train.parquet"), NO_PARQUET),
    case(
        "Parquet without the column",
        train(parquet(TABLE.drop(["label"])), "train.parquet"),
        "data/train.parquet",
        "column 'label' is missing; found: text",
    ),
    case(
        "unknown suffix",
        train(b"PK", "train.xlsx"),
        "data/train.xlsx: unknown kind of file; known: .csv, .jsonl, .parquet, .tsv, .txt",
    ),
    case(
        "train and validation the same file",
        mapped(validation="train.tsv"),
        "tasks.own: 24 of the 24 rows of the validation split stand in the training split too",
    ),
    case(
        "one class only",
        train(tsv([(text, "good") for text, _ in TRAIN])),
        "tasks.own: the train split holds one class only",
    ),
    case(
        "one class only held out",
        put("dev.tsv", tsv([(text, "good") for text, _ in HELD_OUT])),
        "tasks.own: the validation split holds one class only",
    ),
    case(
        "no label at all",
        train(tsv([(text, "-") for text, _ in TRAIN])),
        "tasks.own.train_rows: 0 usable rows are left; at least 2 are needed",
    ),
    case(
        "too many training rows asked for",
        keyed("tasks.own.train_rows", 25),
        "tasks.own.train_rows: got 25; must be at most the 24 that are there",
    ),
    case(
        "too many validation rows asked for",
        keyed("tasks.own.validation_rows", 21),
        "tasks.own.validation_rows: got 21; must be at most the 20 that are there",
    ),
    case(
        "file changed between configure and prepare",
        both(),
        "data/train.tsv: changed since params.yaml was checked; run again",
        between=lambda folder: (folder / "data/train.tsv").write_text(tsv(TRAIN[:-1])),
    ),
    case(
        "file gone between configure and prepare",
        both(),
        "data/dev.tsv: changed since params.yaml was checked; run again",
        between=lambda folder: (folder / "data/dev.tsv").unlink(),
    ),
    case(
        "class named twice",
        mapped(labels=["bad", "good", "bad"]),
        "tasks.own.files.labels",
        "'bad'",
    ),
    case("one column for two texts", mapped(texts=["text"] * 2), "tasks.own.files.texts", "'text'"),
    case(
        "own task without files", keyed("tasks.own.files", None), "params.yaml: tasks: got 'own'; "
    ),
    case(
        "task that GLUE has not",
        keyed("tasks", {"snli": {}}),
        "tasks.snli.files (or mnli_init.files): is missing; GLUE's folder has no task 'snli'",
    ),
]


def hub_copy(change: Callable[[dict[str, datasets.Dataset]], Any]) -> Mistake:
    """Return a study of a saved copy of the hub's RTE, changed."""

    def make(values: Params, folder: Path) -> None:
        sourced("hub", "rte", "data")(values, folder)
        datasets.disable_progress_bars()
        names = datasets.ClassLabel(names=["entailment", "not_entailment"])
        splits = {}
        for name, rows in (("train", TRAIN), ("validation", HELD_OUT)):
            columns: dict[str, list[Any]] = {"sentence1": [text for text, _ in rows]}
            columns["sentence2"] = ["and so on"] * len(rows)
            columns["label"] = [i % 2 for i in range(len(rows))]
            splits[name] = datasets.Dataset.from_dict(columns).cast_column("label", names)
        change(splits)
        datasets.DatasetDict(splits).save_to_disk(str(folder / "data/rte"))

    return make


def turned(splits: dict[str, datasets.Dataset]) -> None:
    names = datasets.ClassLabel(names=["not_entailment", "entailment"])
    splits["train"] = splits["train"].cast_column("label", names)


def archive_of(content: Callable[[bytes], bytes]) -> Mistake:
    """Return a study of opinions whose archive, where the repository has it, is another."""

    def make(values: Params, folder: Path) -> None:
        sourced("opinions", "tweet_rating")(values, folder)
        whole = ROOT / opinions.DOWNLOADS / opinions.ARCHIVE
        (folder / opinions.DOWNLOADS).mkdir()
        (folder / opinions.DOWNLOADS / opinions.ARCHIVE).write_bytes(
            content(whole.read_bytes() if whole.is_file() else b"no archive here")
        )

    return make


HASH = "data/downloads/vaderSentiment-3.3.2.tar.gz: sha256 is "
SOURCES = [
    case(
        "no saved dataset",
        sourced("hub", "rte", "data"),
        "data.folder: 'data' holds no saved dataset 'rte'",
    ),
    case(
        "saved classes in another order",
        hub_copy(turned),
        "data/rte split train: its classes are ['not_entailment', 'entailment']",
    ),
    case(
        "saved split missing",
        hub_copy(lambda splits: splits.pop("validation")),
        "data/rte split validation: is missing; found: train",
    ),
    case(
        "task unknown to the hub",
        sourced("hub", "tweet_rating"),
        "data.source 'hub' has no task 'tweet_rating'; known: ",
    ),
    case(
        "task unknown to opinions",
        sourced("opinions", "rte"),
        "data.source 'opinions' has no task 'rte'; ",
    ),
    case(
        "mapping given with opinions",
        sourced("opinions"),
        "params.yaml: tasks.own.files: data.source is 'opinions'; must be 'files'",
    ),
    case(
        "folder given with opinions",
        sourced("opinions", "tweet_rating", "data"),
        "params.yaml: data.folder: got 'data'; must be empty for data.source 'opinions'",
    ),
    case(
        "archive truncated",
        archive_of(lambda whole: whole[: len(whole) // 2]),
        HASH,
        "delete the file",
    ),
    case("archive changed", archive_of(lambda whole: whole + b"\n"), HASH, opinions.SHA256),
    case("archive empty", archive_of(lambda _: b""), HASH),
]


def model(break_it: Callable[[Path], Any]) -> Mistake:
    """Return a study of a small model, broken, in the study's folder."""

    def make(values: Params, folder: Path) -> None:
        path = folder / "model"
        values["model"]["name"] = str(path)
        small_model("bert").save_pretrained(path)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copy(model_folder("minilm") / name, path)
        break_it(path)

    return make


def no_tokeniser(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()


def cut_tokeniser(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:100_000])


def cut_weights(bytes_kept: slice) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[bytes_kept])

    return make


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def another_config(**change: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))

    return make


def code_of_its_own(folder: Path) -> None:
    """A tokeniser that names Python code in the folder, which must never be run."""
    (folder / "tok.py").write_text("raise SystemExit('the code of the model folder was run')")
    settings = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": ["tok.Tok", "tok.Tok"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").unlink()


def broken(name: str, break_it: Callable[[Path], Any], *says: str) -> Any:
    return case(name, model(break_it), "error: model.name is ", *says)


DAMAGED = "/model/model.safetensors is damaged"
ON_THE_HUB = "FacebookAI/roberta-base"
MODELS = [
    broken("tokeniser with code of its own", code_of_its_own, "no tokeniser in ", "custom code"),
    broken(
        "an adapter for an encoder",
        holding("adapter_config.json", "{}"),
        "holds an adapter (adapter_config.json), not an encoder",
    ),
    broken(
        "half of the layers",
        another_config(num_hidden_layers=1),
        "config.json says 1 layers, its weights have 2",
    ),
    broken(
        "heads that do not divide the width",
        another_config(num_attention_heads=7),
        "hidden_size is 32; must be a multiple of num_attention_heads 7",
    ),
    case(
        "a revision of the embedded model",
        keyed("model.revision", "a" * 40),
        "model.revision: got 'aaaa",
        "must be empty for model.name 'minilm'",
    ),
    case("a name too long", keyed("model.name", "a" * 300), "model.name", "at most 200 char"),
    broken("no configuration", without("config.json"), "config.json is missing"),
    broken("no weights", without("model.safetensors"), "safetensors is missing"),
    broken("configuration cut off", holding("config.json", "{"), "not valid JSON"),
    broken("configuration a list", holding("config.json", "[]"), "no valid 'model_type'"),
    broken(
        "no width",
        another_config(hidden_size=None),
        "hidden_size is None; must be a whole number of at least 1",
    ),
    broken(
        "relative positions",
        another_config(position_embedding_type="relative_key"),
        "position_embedding_type is 'relative_key'; must be 'absolute'",
    ),
    broken("no tokeniser", no_tokeniser, "/model holds no tokeniser"),
    broken("tokeniser cut off", cut_tokeniser, "no tokeniser in "),
    broken(
        "pickle only",
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "holds pytorch_model.bin, a pickle, which can run code, and no safetensors",
    ),
    broken("half of the weights", cut_weights(slice(99_999)), DAMAGED),
    broken("weights cut off", cut_weights(slice(-9)), DAMAGED),
    broken(
        "unknown architecture",
        another_config(model_type="gpt2"),
        "architecture 'gpt2' has no known weight names; known: bert, deberta-v2, roberta",
    ),
    case("no such model", keyed("model.name", "nowhere"), "model.name is 'nowhere': no such"),
    case(
        "hub model without a revision",
        keyed("model.name", ON_THE_HUB),
        f"model.revision: is empty; model.name is '{ON_THE_HUB}'",
    ),
    case(
        "hub model at a branch",
        both(keyed("model.name", ON_THE_HUB), keyed("model.revision", "main")),
        "params.yaml: model.revision: got 'main'; must be ",
        "40",
    ),
    case(
        "texts longer than the model reads",
        both(model(lambda _: None), keyed("model.max_length", 128)),
        "params.yaml: model.max_length: got 128; must be at most 66",
    ),
]


def stage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Run a stage's script in this process, as its command would."""
    monkeypatch.setenv("PEFT_STUDY_STORE", "store")
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(ROOT / f"stages/{name}.py"), run_name="__main__")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files that a stage may write."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("configs", "data")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def set_up(folder: Path, values: Params) -> Path:
    """Write params.yaml, and what an earlier run has left: configurations and prepared data.

    Returns:
        A file of the prepared data of the study's one task.
    """
    (task,) = values["tasks"]
    values["sweep"]["task"], values["profile"]["tasks"] = task, [task]
    prepared = folder / f"data/prepared/{task}/x"
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    shutil.copy(ROOT / "requirements.lock", folder)
    for path in (folder / "configs/prepare.json", folder / "configs/stale.json", prepared):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MARKER)
    return prepared


def assert_one_line(stderr: str, says: tuple[str, ...]) -> None:
    assert stderr.endswith("\n")
    (error,) = stderr.splitlines()
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for part in says:
        assert part in error


@pytest.mark.parametrize(("make", "says", "between"), [*FILES, *SOURCES, *MODELS])
def test_one_line_says_what_is_wrong_and_nothing_is_overwritten(
    make: Mistake,
    says: tuple[str, ...],
    between: Callable[[Path], Any] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = study(tmp_path)
    make(values, tmp_path)
    prepared = set_up(tmp_path, values)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    try:
        stage(monkeypatch, "configure")
    except SystemExit as error:
        ended = error
    else:
        if between:
            between(tmp_path)
        before = snapshot(tmp_path)
        with pytest.raises(SystemExit) as caught:
            stage(monkeypatch, "prepare")
        ended = caught.value
    assert ended.code == 2
    assert_one_line(capsys.readouterr().err, says)
    # Where `configure` fails, the configurations stay as they were, and so does prepared data.
    assert snapshot(tmp_path) == before
    assert prepared.read_text() == MARKER


def test_the_study_itself_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a mistake the two stages end well: the cases above fail for their mistake."""
    set_up(tmp_path, study(tmp_path)).unlink()
    monkeypatch.chdir(tmp_path)
    stage(monkeypatch, "configure")
    stage(monkeypatch, "prepare")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("configure: wrote ")
    wrote = "wrote 24 train, 20 validation rows to data/prepared/own/ (0 dropped)"
    assert out[1] == f"prepare own: {wrote}"
    assert not (tmp_path / "configs/stale.json").exists()


def test_texts_that_the_tokeniser_does_not_know_are_named_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(tmp_path, study(tmp_path)).unlink()
    smiling = tsv([*TRAIN, ("\U0001f600 \U0001f601", "good"), ("\U0001f602", "bad")])
    (tmp_path / "data/train.tsv").write_text(smiling, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    stage(monkeypatch, "configure")
    stage(monkeypatch, "prepare")
    assert "; 2 hold only signs that the tokeniser does not know\n" in capsys.readouterr().out


# --- The commands themselves --------------------------------------------------------------------


def command(folder: Path, name: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    paths = {"PYTHONPATH": str(ROOT / "src"), "PEFT_STUDY_STORE": "store"}
    stage = [sys.executable, str(ROOT / f"stages/{name}.py")]
    environment = os.environ | paths | variables
    return subprocess.run(
        stage, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def assert_refused(folder: Path, name: str, says: str, **variables: str) -> None:
    """Check that a stage ends with code 2 and one line, and writes nothing."""
    before = snapshot(folder)
    result = command(folder, name, **variables)
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr, (says,))
    assert snapshot(folder) == before


def test_the_commands_end_with_code_2_and_one_line(tmp_path: Path) -> None:
    set_up(tmp_path, study(tmp_path))
    configured = command(tmp_path, "configure")
    assert (configured.returncode, configured.stderr) == (0, "")
    (tmp_path / "data/train.tsv").write_text(line(9, "a text\tgreat"))
    assert_refused(tmp_path, "prepare", "data/train.tsv: changed since params.yaml was checked")
    assert_refused(tmp_path, "configure", "data/train.tsv line 9: unknown label 'great'")


def test_a_hub_model_without_a_network_and_without_a_cache(tmp_path: Path) -> None:
    values = study(tmp_path)
    values["model"] |= {"name": ON_THE_HUB, "revision": "0" * 40}
    set_up(tmp_path, values)
    says = f"model.name is '{ON_THE_HUB}' at 000000000000: cannot be fetched ("
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    assert_refused(tmp_path, "configure", says, **offline)


def test_a_missing_folder_on_the_command_line(tmp_path: Path) -> None:
    set_up(tmp_path, study(tmp_path))
    shutil.rmtree(tmp_path / "configs")
    shutil.rmtree(tmp_path / "data")
    assert_refused(tmp_path, "configure", "data.folder: got 'data'; there is no such folder")
    assert not (tmp_path / "configs").exists()
