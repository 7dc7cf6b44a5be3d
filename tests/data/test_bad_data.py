"""Data and models that cannot be used: one line that says which, and nothing overwritten."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from conftest import CONFIGS, ROOT, small_model
from peft_study.data.sources import opinions
from peft_study.encoders.pretrained import model_folder

WORDS = ("apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer")
TEXTS = [f"the {a} and the {b}" for a in WORDS for b in WORDS if a != b]
LABELS = ("bad", "good")
MARKER = "what an earlier run wrote\n"

Params = dict[str, Any]


def table(texts: list[str]) -> list[tuple[str, str]]:
    return [(text, LABELS[i % 2]) for i, text in enumerate(texts)]


TRAIN, HELD_OUT = table(TEXTS[:24]), table(TEXTS[24:44])


def tsv(rows: list[tuple[Any, ...]], header: str = "text\tlabel") -> str:
    return "\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n"


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def records(rows: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in rows]


def study(folder: Path) -> Params:
    """Return parameters of a study of one task, `own`, in files of one's own in `folder`/data."""
    values: Params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    values["model"] |= {"name": "minilm", "revision": None}
    values["data"] |= {"source": "files", "folder": "data"}
    values["methods"] = ["lora"]
    values["lora"]["r"] = 4
    values["adapter_h"]["bottleneck"] = 4
    values["profile"]["ranks"] = []
    values["mnli_init"] |= {"mode": "none", "task": "mnli", "tasks": []}
    mapping = {
        "train": "train.tsv",
        "validation": "dev.tsv",
        "texts": ["text"],
        "label": "label",
        "labels": list(LABELS),
    }
    values["tasks"] = {"own": {"files": mapping}}
    data = folder / "data"
    data.mkdir()
    (data / "train.tsv").write_text(tsv(TRAIN), encoding="utf-8")
    (data / "dev.tsv").write_text(tsv(HELD_OUT), encoding="utf-8")
    return values


@dataclass(frozen=True)
class Case:
    """A mistake, and what the line about it has to say.

    Attributes:
        id: what is wrong.
        make: makes the mistake, in parameters, or in files below the study's folder.
        says: parts of the error's line: the file or the key, the line, what is wrong.
        between: makes the mistake after `configure`, if `make` does not.
        task: the task that is prepared.
    """

    id: str
    make: Callable[[Params, Path], Any]
    says: tuple[str, ...]
    between: Callable[[Path], Any] | None = None
    task: str = "own"


def put(name: str, content: str | bytes | pa.Table) -> Callable[[Params, Path], None]:
    """Return a mistake: the contents of a file below the study's folder."""

    def make(_: Params, folder: Path) -> None:
        path = folder / "data" / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def line(number: int, content: str, rows: list[tuple[str, str]] = TRAIN) -> str:
    """Return a file of which one line, counted from 1, is another one."""
    lines = tsv(rows).split("\n")
    lines[number - 1] = content
    return "\n".join(lines)


def mapped(**change: Any) -> Callable[[Params, Path], None]:
    """Return a mistake in the names of files and columns."""

    def make(values: Params, _: Path) -> None:
        values["tasks"]["own"]["files"] |= change

    return make


def both(*makes: Callable[[Params, Path], Any]) -> Callable[[Params, Path], None]:
    def make(values: Params, folder: Path) -> None:
        for one in makes:
            one(values, folder)

    return make


def keyed(key: str, value: Any) -> Callable[[Params, Path], None]:
    """Return a mistake in a dotted key of the parameters."""

    def make(values: Params, _: Path) -> None:
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return make


def scores(train: list[tuple[str, Any]]) -> Callable[[Params, Path], None]:
    """Return a study of STS-B, scored from 0 to 5, with these rows first in its training file."""

    def make(values: Params, folder: Path) -> None:
        values["tasks"] = {"stsb": {}}
        (folder / "data/STS-B").mkdir()
        good = [(text, i % 6) for i, (text, _) in enumerate(TRAIN)]
        for name, rows in (("train", [*train, *good]), ("dev", good)):
            lines = [(text, "another text", score) for text, score in rows]
            content = tsv(lines, "sentence1\tsentence2\tscore")
            (folder / f"data/STS-B/{name}.tsv").write_text(content)

    return make


def as_json(content: str) -> Callable[[Params, Path], None]:
    """Return a study whose training file is JSON Lines."""
    return both(mapped(train="train.jsonl"), put("train.jsonl", content))


def glue(name: str, **contents: str) -> Callable[[Params, Path], None]:
    """Return a study of a task of GLUE's, with these files."""

    def make(values: Params, folder: Path) -> None:
        values["tasks"] = {name.lower(): {}}
        (folder / "data" / name).mkdir()
        for file, content in contents.items():
            (folder / f"data/{name}/{file}.tsv").write_text(content)

    return make


GOOD = jsonl(records(TRAIN))
PARQUET = pa.table({"text": [t for t, _ in TRAIN], "label": [label for _, label in TRAIN]})


def parquet_cut(_: Params, folder: Path) -> None:
    path = folder / "data/train.parquet"
    pq.write_table(PARQUET, path)
    path.write_bytes(path.read_bytes()[:-30])


RTE = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"

FILES = [
    Case("missing folder", keyed("data.folder", "nowhere"), ("data.folder", "'nowhere'")),
    Case("no folder named", keyed("data.folder", None), ("data.folder: is empty",)),
    Case("a file for a folder", keyed("data.folder", "params.yaml"), ("data.folder", "no such")),
    Case("missing file", mapped(train="other.tsv"), ("data/other.tsv: no such file",)),
    Case(
        "missing file of GLUE's",
        glue("RTE", train=RTE),
        ("data/RTE/dev.tsv: no such file", "'rte'"),
        task="rte",
    ),
    Case(
        "wrong text column",
        mapped(texts=["sentence"]),
        ("data/train.tsv line 1: column 'sentence' is missing; found: text, label",),
    ),
    Case(
        "wrong label column",
        mapped(label="gold"),
        ("data/train.tsv line 1: column 'gold' is missing",),
    ),
    Case(
        "columns missing from one file only",
        put("dev.tsv", tsv(HELD_OUT, "txt\tlabel")),
        ("data/dev.tsv line 1: column 'text' is missing; found: txt, label",),
    ),
    Case(
        "duplicate column",
        put("train.tsv", tsv([(*row, "x") for row in TRAIN], "text\tlabel\ttext")),
        ("data/train.tsv line 1: column 'text' is there more than once",),
    ),
    Case(
        "a field too many",
        put("train.tsv", line(7, "one\ttoo many\tgood")),
        ("data/train.tsv line 7: 3 fields, expected 2",),
    ),
    Case(
        "a field missing",
        put("dev.tsv", line(3, "no label at all", HELD_OUT)),
        ("data/dev.tsv line 3: 1 fields, expected 2",),
    ),
    Case(
        "not UTF-8 behind a byte order mark",
        put("train.tsv", b"\xef\xbb\xbftext\tlabel\na b\tgood\n\xff\tbad\n"),
        ("data/train.tsv line 3: is not UTF-8 text",),
    ),
    Case(
        "text in Parquet that is not UTF-8",
        both(
            mapped(train="train.parquet"),
            put(
                "train.parquet",
                pa.table(
                    {
                        "text": pa.array([b"a", b"\xff"], pa.binary()).view(pa.string()),
                        "label": ["bad", "good"],
                    }
                ),
            ),
        ),
        ("data/train.parquet: cannot be read as Parquet",),
    ),
    Case(
        "indices where labels are named otherwise",
        both(mapped(labels=["1.0", "0.0"]), put("train.tsv", line(2, "a text\t0"))),
        ("data/train.tsv line 2: unknown label '0'; known: 1.0, 0.0",),
    ),
    Case(
        "unknown label",
        put("train.tsv", line(5, "a text\tgreat")),
        ("data/train.tsv line 5: unknown label 'great'; known: bad, good",),
    ),
    Case(
        "class label out of range",
        put("train.tsv", line(6, "a text\t2")),
        ("data/train.tsv line 6: unknown label '2'",),
    ),
    Case(
        "negative class label",
        put("train.tsv", line(6, "a text\t-2")),
        ("data/train.tsv line 6: unknown label '-2'",),
    ),
    Case(
        "label in other letters",
        put("train.tsv", line(6, "a text\tGood")),
        ("data/train.tsv line 6: unknown label 'Good'; known: bad, good",),
    ),
    Case(
        "score out of range",
        scores([("a", 5.5)]),
        ("data/STS-B/train.tsv line 2: score 5.5 is not a finite number from 0 to 5",),
        task="stsb",
    ),
    Case(
        "score NaN",
        scores([("a", 1), ("b", "nan")]),
        ("data/STS-B/train.tsv line 3: score nan",),
        task="stsb",
    ),
    Case(
        "score infinite",
        both(mapped(labels=None), put("train.tsv", tsv([("a", 1), ("b", "-inf")]))),
        ("data/train.tsv line 3: score -inf is not a finite number",),
    ),
    Case(
        "score not a number",
        scores([("a", "four")]),
        ("data/STS-B/train.tsv line 2: score 'four' is no number",),
        task="stsb",
    ),
    Case(
        "score with a decimal comma",
        scores([("a", "4,5")]),
        ("data/STS-B/train.tsv line 2: score '4,5' is no number",),
        task="stsb",
    ),
    Case(
        "score missing",
        scores([("a", "")]),
        ("data/STS-B/train.tsv line 2: score '' is no number",),
        task="stsb",
    ),
    Case("empty file", put("train.tsv", ""), ("data/train.tsv: is empty",)),
    Case("empty JSON Lines file", as_json("\n\n"), ("data/train.jsonl: is empty",)),
    Case("header only", put("dev.tsv", "text\tlabel\n"), ("data/dev.tsv: holds no rows",)),
    Case(
        "empty sentence",
        put("train.tsv", line(4, "\tgood")),
        ("data/train.tsv line 4: a text is empty",),
    ),
    Case(
        "sentence of spaces",
        put("train.tsv", line(4, " \u00a0 \tgood")),
        ("data/train.tsv line 4: a text is empty",),
    ),
    Case(
        "invalid UTF-8",
        put("train.tsv", tsv(TRAIN).encode() + b"caf\xe9\tgood\n"),
        (f"data/train.tsv line {len(TRAIN) + 2}: is not UTF-8 text",),
    ),
    Case(
        "UTF-16",
        put("train.tsv", tsv(TRAIN).encode("utf-16")),
        ("data/train.tsv line 1: is not UTF-8 text",),
    ),
    Case(
        "broken JSON",
        as_json(GOOD + '{"text": "a", "label": \n'),
        (f"data/train.jsonl line {len(TRAIN) + 1}: not valid JSON",),
    ),
    Case(
        "JSON too deep",
        as_json(GOOD + "[" * 200_000 + "\n"),
        (f"data/train.jsonl line {len(TRAIN) + 1}: not valid JSON",),
    ),
    Case(
        "JSON key missing",
        as_json(GOOD + '\n{"text": "a"}\n'),
        (f"data/train.jsonl line {len(TRAIN) + 2}: 'label' is missing",),
    ),
    Case(
        "JSON key missing from all",
        as_json(jsonl([{"label": "good"}])),
        ("data/train.jsonl line 1: column 'text' is missing; found: label",),
    ),
    Case(
        "JSON list instead of lines",
        as_json(json.dumps(records(TRAIN))),
        ("data/train.jsonl line 1: must hold a JSON object",),
    ),
    Case(
        "text not a string",
        as_json(jsonl(records([*TRAIN[:2], (7, "good")]))),  # type: ignore[list-item]
        ("data/train.jsonl line 3: the text 7 is not a string",),
    ),
    Case(
        "text null",
        as_json(jsonl(records([(None, "good")]))),  # type: ignore[list-item]
        ("data/train.jsonl line 1: the text None is not a string",),
    ),
    Case(
        "half a character",
        as_json(GOOD + '{"text": "a \\ud83d b", "label": "good"}\n'),
        (f"data/train.jsonl line {len(TRAIN) + 1}: ", "text"),
    ),
    Case(
        "CSV quote not closed",
        both(mapped(train="train.csv"), put("train.csv", 'text,label\na,good\n"b,bad\n')),
        ("data/train.csv line ", "unexpected end of data"),
    ),
    Case(
        "CSV with semicolons",
        both(mapped(train="train.csv"), put("train.csv", "text;label\na;good\n")),
        ("data/train.csv line 1: column 'text' is missing; found: text;label",),
    ),
    Case(
        "truncated Parquet",
        both(mapped(train="train.parquet"), parquet_cut),
        ("data/train.parquet: cannot be read as Parquet",),
    ),
    Case(
        "Parquet in name only",
        both(mapped(train="train.parquet"), put("train.parquet", tsv(TRAIN))),
        ("data/train.parquet: cannot be read as Parquet",),
    ),
    Case(
        "Parquet without the column",
        both(mapped(train="train.parquet"), put("train.parquet", PARQUET.drop(["label"]))),
        ("data/train.parquet", "column 'label' is missing; found: text"),
    ),
    Case(
        "unknown suffix",
        both(mapped(train="train.xlsx"), put("train.xlsx", b"PK")),
        ("data/train.xlsx: unknown kind of file; known: .csv, .jsonl, .parquet, .tsv, .txt",),
    ),
    Case(
        "train and validation the same file",
        mapped(validation="train.tsv"),
        ("tasks.own: 24 training rows stand in the validation split of 24",),
    ),
    Case(
        "one class only",
        put("train.tsv", tsv([(text, "good") for text, _ in TRAIN])),
        ("tasks.own: the train split holds one class only",),
    ),
    Case(
        "one class only held out",
        put("dev.tsv", tsv([(text, "good") for text, _ in HELD_OUT])),
        ("tasks.own: the validation split holds one class only",),
    ),
    Case(
        "no label at all",
        put("train.tsv", tsv([(text, "-") for text, _ in TRAIN])),
        ("tasks.own.train_rows: 0 usable rows are left; at least 2 are needed",),
    ),
    Case(
        "too many training rows asked for",
        keyed("tasks.own.train_rows", 25),
        ("tasks.own.train_rows: got 25; must be at most the 24 that are there",),
    ),
    Case(
        "too many validation rows asked for",
        keyed("tasks.own.validation_rows", 21),
        ("tasks.own.validation_rows: got 21; must be at most the 20 that are there",),
    ),
    Case(
        "file changed between configure and prepare",
        lambda *_: None,
        ("data/train.tsv: changed since params.yaml was checked; run again",),
        between=lambda folder: (folder / "data/train.tsv").write_text(tsv(TRAIN[:-1])),
    ),
    Case(
        "file gone between configure and prepare",
        lambda *_: None,
        ("data/dev.tsv: changed since params.yaml was checked; run again",),
        between=lambda folder: (folder / "data/dev.tsv").unlink(),
    ),
    Case(
        "class named twice",
        mapped(labels=["bad", "good", "bad"]),
        ("tasks.own.files.labels", "'bad'"),
    ),
    Case(
        "one column for two texts",
        mapped(texts=["text", "text"]),
        ("tasks.own.files.texts", "'text'"),
    ),
    Case(
        "own task without files",
        keyed("tasks.own.files", None),
        ("params.yaml: tasks: got 'own'; ",),
    ),
    Case(
        "task that GLUE has not",
        keyed("tasks", {"snli": {}}),
        ("tasks.snli.files (or mnli_init.files): is missing; GLUE's folder has no task 'snli'",),
        task="snli",
    ),
]


def hub_copy(change: Callable[[dict[str, datasets.Dataset]], Any]) -> Callable[[Params, Path], Any]:
    """Return a study of a saved copy of the hub's RTE, changed."""

    def make(values: Params, folder: Path) -> None:
        values["data"]["source"] = "hub"
        values["tasks"] = {"rte": {}}
        datasets.disable_progress_bars()
        names = datasets.ClassLabel(names=["entailment", "not_entailment"])
        splits = {
            name: datasets.Dataset.from_dict(
                {
                    "sentence1": [text for text, _ in rows],
                    "sentence2": ["and so on"] * len(rows),
                    "label": [i % 2 for i in range(len(rows))],
                }
            ).cast_column("label", names)
            for name, rows in (("train", TRAIN), ("validation", HELD_OUT))
        }
        change(splits)
        datasets.DatasetDict(splits).save_to_disk(str(folder / "data/rte"))

    return make


def turned(splits: dict[str, datasets.Dataset]) -> None:
    names = datasets.ClassLabel(names=["not_entailment", "entailment"])
    splits["train"] = splits["train"].cast_column("label", names)


SOURCES = [
    Case(
        "no saved dataset",
        both(keyed("data.source", "hub"), keyed("tasks", {"rte": {}})),
        ("data.folder: 'data' holds no saved dataset 'rte'",),
        task="rte",
    ),
    Case(
        "saved classes in another order",
        hub_copy(turned),
        ("data/rte split train: its classes are ['not_entailment', 'entailment']",),
        task="rte",
    ),
    Case(
        "saved split missing",
        hub_copy(lambda splits: splits.pop("validation")),
        ("data/rte split validation: is missing; found: train",),
        task="rte",
    ),
    Case(
        "task unknown to the hub",
        both(
            keyed("data.source", "hub"),
            keyed("data.folder", None),
            keyed("tasks", {"tweet_rating": {}}),
        ),
        ("data.source 'hub' has no task 'tweet_rating'; known: ",),
        task="tweet_rating",
    ),
    Case(
        "task unknown to opinions",
        both(
            keyed("data.source", "opinions"),
            keyed("data.folder", None),
            keyed("tasks", {"rte": {}}),
        ),
        ("data.source 'opinions' has no task 'rte'; ",),
        task="rte",
    ),
    Case(
        "mapping given with opinions",
        both(keyed("data.source", "opinions"), keyed("data.folder", None)),
        ("params.yaml: tasks.own.files: data.source is 'opinions'; must be 'files'",),
    ),
    Case(
        "folder given with opinions",
        both(keyed("data.source", "opinions"), keyed("tasks", {"tweet_rating": {}})),
        ("params.yaml: data.folder: got 'data'; must be empty for data.source 'opinions'",),
        task="tweet_rating",
    ),
]


def archive_of(content: Callable[[bytes], bytes]) -> Callable[[Params, Path], None]:
    """Return a study of opinions whose archive, where the repository has it, is another."""

    def make(values: Params, folder: Path) -> None:
        values["data"] |= {"source": "opinions", "folder": None}
        values["tasks"] = {"tweet_rating": {}}
        whole = ROOT / opinions.DOWNLOADS / opinions.ARCHIVE
        (folder / opinions.DOWNLOADS).mkdir()
        (folder / opinions.DOWNLOADS / opinions.ARCHIVE).write_bytes(
            content(whole.read_bytes() if whole.is_file() else b"no archive here")
        )

    return make


SOURCES += [
    Case(
        "archive truncated",
        archive_of(lambda content: content[: len(content) // 2]),
        ("data/downloads/vaderSentiment-3.3.2.tar.gz: sha256 is ", "delete the file"),
        task="tweet_rating",
    ),
    Case(
        "archive changed",
        archive_of(lambda content: content + b"\n"),
        ("data/downloads/vaderSentiment-3.3.2.tar.gz: sha256 is ", opinions.SHA256),
        task="tweet_rating",
    ),
    Case(
        "archive empty",
        archive_of(lambda _: b""),
        ("data/downloads/vaderSentiment-3.3.2.tar.gz: sha256 is ",),
        task="tweet_rating",
    ),
]


def model(break_it: Callable[[Path], Any]) -> Callable[[Params, Path], None]:
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


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_architecture(folder: Path) -> None:
    config = CONFIGS["bert"].to_dict() | {"model_type": "gpt2"}
    (folder / "config.json").write_text(json.dumps(config))


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


MODELS = [
    Case(
        "tokeniser with code of its own",
        model(code_of_its_own),
        ("model.name is ", "no tokeniser in ", "custom code"),
    ),
    Case(
        "an adapter for an encoder",
        model(lambda folder: (folder / "adapter_config.json").write_text("{}")),
        ("holds an adapter (adapter_config.json), not an encoder",),
    ),
    Case(
        "half of the layers",
        model(another_config(num_hidden_layers=1)),
        ("config.json says 1 layers, its weights have 2",),
    ),
    Case(
        "heads that do not divide the width",
        model(another_config(num_attention_heads=7)),
        ("hidden_size 32 is no multiple of num_attention_heads 7",),
    ),
    Case(
        "a revision of the embedded model",
        keyed("model.revision", "a" * 40),
        ("model.revision: got 'aaaa", "must be empty for model.name 'minilm'"),
    ),
    Case("a name too long", keyed("model.name", "a" * 300), ("model.name", "at most 200 char")),
    Case("no tokeniser", model(no_tokeniser), ("model.name is ", "/model holds no tokeniser")),
    Case("tokeniser cut off", model(cut_tokeniser), ("model.name is ", "no tokeniser in ")),
    Case(
        "pickle only",
        model(pickle_only),
        ("model.name is ", "holds pytorch_model.bin, a pickle, which can run code"),
    ),
    Case(
        "weights cut off",
        model(cut_weights),
        ("model.name is ", "/model/model.safetensors is damaged"),
    ),
    Case("unknown architecture", model(other_architecture), ("architecture 'gpt2'", "bert")),
    Case("no such model", keyed("model.name", "nowhere"), ("model.name is 'nowhere': no such",)),
    Case(
        "hub model without a revision",
        keyed("model.name", "FacebookAI/roberta-base"),
        ("model.revision: is empty; model.name is 'FacebookAI/roberta-base'",),
    ),
    Case(
        "hub model at a branch",
        both(keyed("model.name", "FacebookAI/roberta-base"), keyed("model.revision", "main")),
        ("params.yaml: model.revision: got 'main'; must be ", "40"),
    ),
    Case(
        "texts longer than the model reads",
        both(model(lambda _: None), keyed("model.max_length", 128)),
        ("params.yaml: model.max_length: got 128; must be at most 66",),
    ),
]


def stage(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    """Run a stage's script in this process, as its command would."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / f"stages/{name}.py"), run_name="__main__")


def snapshot(folder: Path, *names: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def arguments(task: str) -> tuple[str, str]:
    return f"configs/prepare/{task}.json", f"data/prepared/{task}"


def set_up(folder: Path, values: Params, task: str) -> None:
    """Write params.yaml, and what an earlier run has left: configurations and prepared data."""
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    shutil.copy(ROOT / "requirements.lock", folder)
    for name in (f"configs/prepare/{task}.json", "configs/stale.json", f"data/prepared/{task}/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(MARKER)


def assert_one_line(stderr: str, says: tuple[str, ...]) -> None:
    assert stderr.endswith("\n")
    (error,) = stderr.splitlines()
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for part in says:
        assert part in error


@pytest.mark.parametrize("case", [*FILES, *SOURCES, *MODELS], ids=lambda case: case.id)
def test_one_line_says_what_is_wrong_and_nothing_is_overwritten(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = study(tmp_path)
    case.make(values, tmp_path)
    set_up(tmp_path, values, case.task)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path, "configs", "data")
    try:
        stage(monkeypatch, "configure")
    except SystemExit as error:
        ended = error
    else:
        if case.between:
            case.between(tmp_path)
        before = snapshot(tmp_path, "configs", "data")
        with pytest.raises(SystemExit) as caught:
            stage(monkeypatch, "prepare", *arguments(case.task))
        ended = caught.value
    assert ended.code == 2
    assert_one_line(capsys.readouterr().err, case.says)
    # Where `configure` fails, the configurations stay as they were, and so does prepared data.
    assert snapshot(tmp_path, "configs", "data") == before
    assert (tmp_path / f"data/prepared/{case.task}/x").read_text() == MARKER


def test_the_study_itself_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a mistake the two stages end well: the cases above fail for their mistake."""
    set_up(tmp_path, study(tmp_path), "own")
    (tmp_path / "data/prepared/own/x").unlink()
    monkeypatch.chdir(tmp_path)
    stage(monkeypatch, "configure")
    stage(monkeypatch, "prepare", *arguments("own"))
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("configure: wrote ")
    assert out[1] == (
        "prepare own: wrote 24 train, 20 validation rows to data/prepared/own/ (0 dropped)"
    )
    assert not (tmp_path / "configs/stale.json").exists()


# --- The commands themselves --------------------------------------------------------------------


def command(folder: Path, name: str, *given: str, **variables: str) -> Any:
    return subprocess.run(
        [sys.executable, str(ROOT / f"stages/{name}.py"), *given],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables,
    )


def test_the_commands_end_with_code_2_and_one_line(tmp_path: Path) -> None:
    values = study(tmp_path)
    set_up(tmp_path, values, "own")
    path = tmp_path / "data/train.tsv"
    path.write_text(line(9, "a text\tgreat"))
    configured = command(tmp_path, "configure")
    assert (configured.returncode, configured.stderr) == (0, "")
    before = snapshot(tmp_path, "configs", "data")
    result = command(tmp_path, "prepare", *arguments("own"))
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr, ("data/train.tsv line 9: unknown label 'great'",))
    assert snapshot(tmp_path, "configs", "data") == before


def test_a_hub_model_without_a_network_and_without_a_cache(tmp_path: Path) -> None:
    values = study(tmp_path)
    values["model"] |= {"name": "FacebookAI/roberta-base", "revision": "0" * 40}
    set_up(tmp_path, values, "own")
    before = snapshot(tmp_path, "configs", "data")
    result = command(tmp_path, "configure", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    assert (result.returncode, result.stdout) == (2, "")
    says = ("model.name is 'FacebookAI/roberta-base' at 000000000000: cannot be fetched (",)
    assert_one_line(result.stderr, says)
    assert snapshot(tmp_path, "configs", "data") == before


def test_a_missing_folder_on_the_command_line(tmp_path: Path) -> None:
    values = study(tmp_path)
    set_up(tmp_path, values, "own")
    shutil.rmtree(tmp_path / "configs")
    shutil.rmtree(tmp_path / "data")
    result = command(tmp_path, "configure")
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr, ("data.folder: got 'data'; there is no such folder",))
    assert not (tmp_path / "configs").exists()
