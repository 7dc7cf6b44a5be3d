"""Models from the hub's cache and from folders: whole and pinned, or refused in one line."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizerFast,
)

from conftest import CONFIGS, ROOT, make_config, small_model
from peft_study.data.prepare import prepare
from peft_study.data.sources import tables as files
from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import load_model
from peft_study.encoders.pretrained import is_hub_id, model_config, model_folder
from peft_study.errors import StudyError
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig
from peft_study.training.batches import load_splits
from peft_study.training.loop import train_run

SUBJECTS = ("A man", "The old woman", "Nobody", "My neighbour's dog", "A crowd")
VERBS = ("plays the guitar", "reads a newspaper", "runs", "isn't asleep", "waits")
TEXTS = [f"{subject} {verb}." for subject in SUBJECTS for verb in VERBS]


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """Train a small byte-level BPE with RoBERTa's special tokens at their places."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return RobertaTokenizerFast(tokenizer_object=tokenizer)


def deberta_tokenizer() -> PreTrainedTokenizerFast:
    """Build a unigram model of words and letters, DeBERTa-v2's special tokens at their places."""
    words = {f"▁{word}": -5.0 for text in TEXTS for word in text.split()}
    letters = {letter: -20.0 for word in words for letter in word}
    special = dict.fromkeys(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], 0.0)
    pieces = [*special.items(), *sorted((words | letters).items())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return DebertaV2TokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bert": lambda: AutoTokenizer.from_pretrained(model_folder("minilm")),
    "roberta": roberta_tokenizer,
    "deberta-v2": deberta_tokenizer,
}
# The tokens that begin and end a pair, and how many of the latter stand within it.
SPECIAL = {"bert": (101, 102, 1), "roberta": (0, 2, 2), "deberta-v2": (1, 2, 1)}
Prepared = dict[str, tuple[Path, list[Any]]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return, for each architecture, a folder with a small model and a tokeniser of its own."""
    folders = {}
    for model_type, make in TOKENIZERS.items():
        folders[model_type] = tmp_path_factory.mktemp("model")
        small_model(model_type).save_pretrained(folders[model_type])
        make().save_pretrained(folders[model_type])
    return folders


def encoder(folder: Path, model_type: str) -> Encoder:
    return Encoder(str(folder), None, None, ARCHITECTURES[model_type])


def prepare_config(location: dict[str, Any], read_by: Encoder) -> PrepareConfig:
    """Return a configuration that takes all rows of the files at `location`."""
    rte = TASKS["rte"]
    return PrepareConfig(
        "tasks.rte", "rte", rte, "files", location, 0, None, None, read_by, {}, max_length=64
    )


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return where RTE-like pairs are."""
    data = tmp_path_factory.mktemp("glue")
    (data / "RTE").mkdir()
    pairs = [(a, b) for a in TEXTS[:16] for b in TEXTS[16:20]]
    for name, chosen in (("train", pairs[:16]), ("dev", pairs[16:36])):
        content = "index\tsentence1\tsentence2\tlabel\n"
        for i, (first, second) in enumerate(chosen):
            label = "not_entailment" if i % 3 else "entailment"
            content += f"{i}\t{first}\t{second}\t{label}\n"
        (data / f"RTE/{name}.tsv").write_text(content)
    return files.locate("rte", TASKS["rte"], str(data), None)


@pytest.fixture(scope="module")
def prepared(
    saved: dict[str, Path], location: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """Return the pairs prepared with each tokeniser, and the rows that they are from."""
    rows = list(files.read_rows("rte", TASKS["rte"], location))
    folders = {}
    for model_type, model in saved.items():
        folder = tmp_path_factory.mktemp("prepared")
        summary = prepare(prepare_config(location, encoder(model, model_type)), folder)
        assert summary["splits"]["train"]["rows"] == 16
        assert summary["splits"]["validation"]["rows"] == 20
        folders[model_type] = (folder, rows)
    return folders


# --- Every architecture, from its own tokeniser to its predictions -----------------------------


@pytest.mark.parametrize("model_type", TOKENIZERS)
def test_pairs_are_read_by_the_models_own_tokeniser(
    model_type: str, saved: dict[str, Path], prepared: Prepared
) -> None:
    folder, rows = prepared[model_type]
    source = {row.id: row for row in rows}
    tokenizer = AutoTokenizer.from_pretrained(saved[model_type])
    start, end, inner = SPECIAL[model_type]
    for split in load_splits(folder):
        columns = {name: [row.tolist() for row in rows] for name, rows in split.columns.items()}
        for number, ids in enumerate(columns["input_ids"]):
            row = source[split.ids[number]]
            first, second = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in row.texts)
            assert ids == [start, *first, *[end] * inner, *second, end]
            assert tokenizer.unk_token_id not in ids
            assert int(split.labels[number]) == row.label
            types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            assert columns.get("token_type_ids", [types] * len(split))[number] == types
    # RoBERTa has one type of token only, DeBERTa none: none may be stored for them.
    assert ("token_type_ids" in split.columns) == (model_type == "bert")


@pytest.mark.parametrize("model_type", TOKENIZERS)
def test_model_config_is_the_models(model_type: str, saved: dict[str, Path]) -> None:
    config = model_config(str(saved[model_type]))
    assert (config["model_type"], config["hidden_size"]) == (model_type, 32)
    model = load_model(str(saved[model_type]), num_outputs=3, seed=1)
    assert model.config.model_type == model_type
    assert model.num_labels == 3


@pytest.mark.parametrize("method", ["lora", "adapter_h", "full_ft"])
@pytest.mark.parametrize("model_type", TOKENIZERS)
def test_every_method_trains_every_architecture(
    model_type: str, method: str, saved: dict[str, Path], prepared: Prepared, tmp_path: Path
) -> None:
    folder, rows = prepared[model_type]
    config = make_config(method, saved[model_type], epochs=1, evaluations_per_epoch=1)
    read_by = encoder(saved[model_type], model_type)
    config = replace(config, task="rte", definition=TASKS["rte"], encoder=read_by)
    result = train_run(config, 1, folder, None, tmp_path)
    assert result.steps == 2
    frame = pd.read_parquet(tmp_path / "predictions.parquet")
    labels = {row.id: row.label for row in rows if row.split == "validation"}
    assert sorted(frame["id"]) == sorted(labels)
    assert frame["label"].tolist() == [labels[identity] for identity in frame["id"]]
    logits = torch.tensor([list(row) for row in frame["logits"]])
    assert torch.isfinite(logits).all()
    assert frame["prediction"].tolist() == logits.argmax(dim=-1).tolist()
    # Rows are told apart: a broken mask or a wrong first token would make them all alike.
    assert len({tuple(row) for row in logits.tolist()}) > 10


def test_a_tokeniser_of_another_model_is_refused(
    saved: dict[str, Path], location: dict[str, Any], tmp_path: Path
) -> None:
    """Tokens that the embeddings do not have would end a run long after it was started."""
    folder = tmp_path / "mixed"
    shutil.copytree(saved["roberta"], folder)
    smaller = RobertaConfig(**CONFIGS["roberta"].to_dict() | {"vocab_size": 50})
    AutoModelForSequenceClassification.from_config(smaller).save_pretrained(folder)
    with pytest.raises(StudyError, match=r"model\.name is '.*mixed'.*tokeniser"):
        prepare(prepare_config(location, encoder(folder, "roberta")), tmp_path / "out")


# --- Folders that are no models ---------------------------------------------------------------


def without_tokeniser(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "vocab.json"):
        (folder / name).unlink(missing_ok=True)


def without_a_shard(folder: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "model.safetensors").rename(folder / names[0])
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def folder_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def reconfigured(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_bytes(content)


def cut(size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / "model.safetensors", size)


OTHER_CONFIG = b'{"model_type": "gpt2", "hidden_size": 8, "max_position_embeddings": 66}'
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a folder for its weights": (folder_for_weights, "model.safetensors is missing"),
    "a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "holds pytorch_model.bin, a pickle, which can run code, and no safetensors",
    ),
    "weights cut off": (cut(100_000), "is damaged"),
    "no byte of the weights": (cut(0), "is damaged"),
    "a shard missing": (without_a_shard, "model-00002-of-00002.safetensors"),
    "no tokeniser": (without_tokeniser, "holds no tokeniser"),
    "an unknown architecture": (
        reconfigured(OTHER_CONFIG),
        "'gpt2' has no known weight names; known: bert, deberta-v2, roberta",
    ),
    "a configuration in another encoding": (
        reconfigured(b'{"model_type": "\xff"}'),
        "config.json is not valid JSON",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_incomplete_folder_is_refused_in_one_line(
    what: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    break_it, named = BROKEN[what]
    folder = tmp_path / "model"
    shutil.copytree(saved["bert"], folder)
    break_it(folder)
    with pytest.raises(StudyError) as caught:
        model_config(str(folder))
    message = str(caught.value)
    assert message.startswith(f"model.name is '{folder}': ")
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "org/", "/nowhere"])
def test_a_name_that_is_neither_a_folder_nor_a_hub_model(name: str) -> None:
    with pytest.raises(StudyError, match=r"no such folder; use 'minilm', a local folder"):
        model_folder(name)


def test_a_folder_named_as_a_hub_model_is_a_folder(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/name")
    shutil.copytree(saved["bert"], tmp_path / "org/name")
    assert not is_hub_id("org/name")
    assert model_config("org/name")["model_type"] == "bert"


def test_a_hub_model_without_a_revision() -> None:
    with pytest.raises(StudyError, match=r"^model\.revision: is empty; .* 'org/name'") as caught:
        model_folder("org/name")
    # It may be a folder that is misspelt as well.
    assert "no folder" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- The hub's cache, without a network -------------------------------------------------------

REVISION = "0123456789abcdef0123456789abcdef01234567"
READ = textwrap.dedent(
    """
    import json, sys
    from peft_study.encoders.pretrained import in_hub_cache, model_config, model_folder
    from peft_study.errors import run_command

    def read() -> None:
        config = model_config("org/name", sys.argv[1])
        folder = str(model_folder("org/name", sys.argv[1]))
        print(json.dumps([config["model_type"], folder, in_hub_cache("org/name", sys.argv[1])]))

    run_command(read)
    """
)


def offline(cache: Path, revision: str) -> "subprocess.CompletedProcess[str]":
    """Look a hub model up in a process of its own: the variables are read at the import."""
    hub = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(ROOT / "src")}
    command, environment = [sys.executable, "-c", READ, revision], os.environ | hub
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def hub_cache(folder: Path, model: Path) -> Path:
    """Write what the hub's client leaves in HF_HUB_CACHE; return the snapshot's folder."""
    snapshot = folder / "models--org--name/snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).symlink_to(model / name)  # as the client links to its blobs
    return snapshot


def refused(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: model.name is 'org/name'")
    return line


def test_a_hub_model_in_the_cache_is_read_without_a_network(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    snapshot = hub_cache(tmp_path, saved["roberta"])
    result = offline(tmp_path, REVISION)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == ["roberta", str(snapshot), True]


def test_another_revision_than_the_cached_one(saved: dict[str, Path], tmp_path: Path) -> None:
    hub_cache(tmp_path, saved["roberta"])
    line = refused(offline(tmp_path, "f" * 40))
    assert "at ffffffffffff: cannot be fetched (" in line
    assert "connect to the hub once, or name a local folder" in line


def test_a_snapshot_without_weights(saved: dict[str, Path], tmp_path: Path) -> None:
    """A download that was broken off leaves a folder that looks like a model."""
    snapshot = hub_cache(tmp_path, saved["roberta"])
    (snapshot / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(offline(tmp_path, REVISION))


def test_all_architectures_are_tested() -> None:
    assert set(TOKENIZERS) == set(CONFIGS)
