"""Which of a model's files count, and what they must agree on before anything is done."""

import ast
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from conftest import CONFIGS, small_model
from peft_study.data.sources import Row
from peft_study.data.tokens import as_read, tokenise
from peft_study.encoders import pretrained
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import load_model
from peft_study.encoders.pretrained import longest_text, model_config, model_digest
from peft_study.errors import StudyError
from peft_study.run_config import Encoder
from peft_study.running.local import weight_files

INDEX = "model.safetensors.index.json"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return, for each architecture, a folder with a small model."""
    folders = {kind: tmp_path_factory.mktemp("model") for kind in CONFIGS}
    for kind, folder in folders.items():
        small_model(kind).save_pretrained(folder)
        (folder / "vocab.txt").write_text("[PAD]\n")
    return folders


@pytest.fixture
def copy_of(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the model of an architecture."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(saved[kind], tmp_path / "model"))

    return copy


def say(folder: Path, **said: Any) -> None:
    """Change what a model's configuration says; `...` takes a key out."""
    config = json.loads((folder / "config.json").read_text()) | said
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def change(folder: Path, changed: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    weights = {name: weight.clone() for name, weight in load_file(path).items()}
    save_file(changed(weights), path, {"format": "pt"})


def refusal(folder: Path) -> str:
    """Return why a model is refused, without its name."""
    with pytest.raises(StudyError) as caught:
        model_config(str(folder))
    line = str(caught.value)
    assert line.startswith(f"model.name is '{folder}': ")
    assert "\n" not in line
    return line.removeprefix(f"model.name is '{folder}': ").replace(f"{folder}/", "")


# --- What a configuration may say ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value", "allowed"),
    [
        ("bert", "is_decoder", True, "must be False, or not there"),
        ("roberta", "is_decoder", True, "must be False, or not there"),
        ("deberta-v2", "is_encoder_decoder", True, "must be False, or not there"),
        ("bert", "add_cross_attention", True, "must be False, or not there"),
        ("bert", "pruned_heads", {"0": [1]}, "must be {}, or not there"),
        ("roberta", "chunk_size_feed_forward", 4, "must be 0, or not there"),
        ("roberta", "position_embedding_type", "relative_key", "must be 'absolute', or not there"),
        ("bert", "position_embedding_type", None, "must be 'absolute', or not there"),
        ("deberta-v2", "quantization_config", {"bits": 4}, "must be None, or not there"),
        ("deberta-v2", "conv_kernel_size", 4, "must be 0 or an odd number"),
        ("deberta-v2", "pos_att_type", "c2p|p2p", "must be of c2p and p2c"),
        ("deberta-v2", "pooler_hidden_size", 16, "must be 32 where hidden_size is 32"),
        ("bert", "hidden_act", "prelu", "must be one of gelu, "),  # which has weights of its own
        ("roberta", "pad_token_id", None, "must be a whole number of at least 0"),
        ("roberta", "pad_token_id", -1, "must be a whole number of at least 0"),
        ("bert", "pad_token_id", 30522, "must be below vocab_size 30522"),
        ("bert", "layer_norm_eps", "1e-12", "must be a positive number"),
        ("bert", "hidden_dropout_prob", 1.5, "must be a number from 0 to below 1"),
        ("deberta-v2", "type_vocab_size", None, "must be a whole number of at least 0"),
        ("bert", "num_hidden_layers", True, "must be a whole number of at least 1"),
    ],
)
def test_what_a_configuration_may_not_say(
    kind: str, key: str, value: Any, allowed: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(kind)
    say(folder, **{key: value})
    assert refusal(folder).startswith(f"config.json: {key} is {value!r}; {allowed}")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bert", {"pad_token_id": None}),
        ("bert", {"is_decoder": None, "pruned_heads": None, "pad_token_id": ...}),
        ("roberta", {"pad_token_id": 5, "classifier_dropout": None}),
        ("deberta-v2", {"pos_att_type": "c2p|p2c", "pad_token_id": None}),
        # What decides nothing may be anything: it is not passed on.
        ("bert", {"id2label": ["a", "b", "c"], "torch_dtype": "none", "problem_type": "?"}),
        ("roberta", {"attn_implementation": "flash_attention_2", "transformers_weights": "x"}),
    ],
)
def test_what_a_configuration_may_say(
    kind: str, said: dict[str, Any], copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(kind)
    say(folder, **said)
    assert load_model(str(folder), 3, seed=0).num_labels == 3


@pytest.mark.parametrize(("padding", "longest"), [(0, 65), (1, 64), (3, 62), (5, 60), (..., 64)])
def test_a_text_may_be_as_long_as_positions_are_left(
    padding: Any, longest: int, copy_of: Callable[[str], Path]
) -> None:
    """RoBERTa counts them from the padding's number on; transformers fails beyond."""
    folder = copy_of("roberta")
    say(folder, pad_token_id=padding)
    assert longest_text(model_config(str(folder))) == longest
    model = load_model(str(folder), 2, seed=0).eval()
    model(torch.full((1, longest), 7))
    with pytest.raises(IndexError):
        model(torch.full((1, longest + 1), 7))


def test_a_model_without_a_position_for_a_text(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("roberta")
    say(folder, pad_token_id=65)
    expected = "config.json: max_position_embeddings is 66; must be at least 67"
    assert refusal(folder) == expected


# --- Types of tokens ---------------------------------------------------------------------------

PAIRS = [Row(str(i), str(i), ("a man runs", "nobody sleeps"), i % 2) for i in range(4)]


@pytest.mark.parametrize(
    ("kind", "types", "stored"),
    [("roberta", 1, False), ("bert", 1, False), ("deberta-v2", 0, False), ("roberta", 2, True)],
)
def test_types_are_stored_where_an_encoder_tells_them_apart(
    kind: str, types: int, stored: bool, copy_of: Callable[[str], Path], model_path: Path
) -> None:
    """A tokeniser may write two of them for an encoder that has one."""
    folder = copy_of(kind)
    say(folder, type_vocab_size=types)
    base, name = ARCHITECTURES[kind].base, "embeddings.token_type_embeddings.weight"
    table = {f"{base}.{name}": torch.ones(types, 32)} if types else {}
    change(folder, lambda weights: weights | table)
    tokens = tokenise(PAIRS, BertTokenizerFast.from_pretrained(model_path), 32)
    assert max(tokens["token_type_ids"].to_pylist()[0]) == 1
    read = as_read(tokens, Encoder(str(folder), None, None, ARCHITECTURES[kind]))
    assert ("token_type_ids" in read.column_names) == stored
    assert read["input_ids"] == tokens["input_ids"]


def test_a_type_that_an_encoder_lacks_is_refused(saved: dict[str, Path], model_path: Path) -> None:
    tokens = tokenise(PAIRS, BertTokenizerFast.from_pretrained(model_path), 32)
    place = tokens.column_names.index("token_type_ids")
    third = [[2 * kind for kind in row] for row in tokens["token_type_ids"].to_pylist()]
    tokens = tokens.set_column(place, "token_type_ids", [third])
    with pytest.raises(StudyError, match="gives token type 2, its weights have 2: the tokeniser"):
        as_read(tokens, Encoder(str(saved["bert"]), None, None, ARCHITECTURES["bert"]))


def test_a_text_of_no_token_is_refused(saved: dict[str, Path]) -> None:
    """Laid end to end, the next text's first token would be read instead."""
    words = Tokenizer(models.WordLevel({"a": 1, "[UNK]": 0}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # and no special tokens
    rows = [Row(str(i), str(i), (text,), 0) for i, text in enumerate(["a a", " ", "", "a"])]
    tokens = tokenise(rows, PreTrainedTokenizerFast(tokenizer_object=words), 32)
    with pytest.raises(StudyError, match="its tokeniser gives no token for 2 texts, not even one"):
        as_read(tokens, Encoder(str(saved["bert"]), None, None, ARCHITECTURES["bert"]))


# --- Weights that are not those that a configuration says --------------------------------------


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): found for name, found in weights.items()}


def before(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: found for name, found in weights.items()}


WORDS = "bert.embeddings.word_embeddings.weight"
NOT_THOSE: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "compiled": (before("_orig_mod."), f"; they have '_orig_mod.{WORDS}'"),
    "wrapped": (before("module."), f"; they have 'module.{WORDS}'"),
    "of a larger model": (before("text_model."), f"; they have 'text_model.{WORDS}'"),
    "of other names": (renamed("attention.self", "attn"), "its weights lack 'bert.encoder.layer.0"),
    "a head beside a nameless encoder": (renamed("bert.", ""), "its weights have 'classifier"),
    "a vocabulary of another size": (
        lambda weights: weights | {WORDS: torch.zeros(30523, 32)},
        f"'{WORDS}' has shape (30523, 32); by config.json it must be (30522, 32)",
    ),
    "another width inside": (
        lambda weights: (
            weights | {"bert.encoder.layer.1.output.dense.weight": torch.zeros(32, 128)}
        ),
        "'bert.encoder.layer.1.output.dense.weight' has shape (32, 128); by config.json it must",
    ),
    "fewer positions": (
        lambda weights: (
            weights | {"bert.embeddings.position_embeddings.weight": torch.zeros(40, 32)}
        ),
        "has shape (40, 32); by config.json it must be (66, 32)",
    ),
    "in whole numbers": (
        lambda weights: weights | {WORDS: torch.zeros(30522, 32, dtype=torch.int8)},
        f"'{WORDS}' is of type I8; must be one of BF16, F16, F32, F64",
    ),
    "a head in eight bits": (
        lambda weights: (
            weights | {"classifier.weight": torch.zeros(2, 32, dtype=torch.float8_e5m2)}
        ),
        "'classifier.weight' is of type F8_E5M2; must be one of",
    ),
    "half a pooler": (
        lambda weights: {n: w for n, w in weights.items() if n != "bert.pooler.dense.bias"},
        "its weights lack 'bert.pooler.dense.bias', of shape (32,) by config.json",
    ),
}


@pytest.mark.parametrize("what", NOT_THOSE)
def test_weights_that_a_configuration_does_not_say(
    what: str, copy_of: Callable[[str], Path]
) -> None:
    changed, named = NOT_THOSE[what]
    folder = copy_of("bert")
    change(folder, changed)
    assert named in refusal(folder)


def test_the_names_of_the_first_berts_and_of_an_encoder_alone(
    copy_of: Callable[[str], Path],
) -> None:
    folder = copy_of("bert")
    change(folder, renamed("LayerNorm.weight", "LayerNorm.gamma"))
    change(folder, renamed("LayerNorm.bias", "LayerNorm.beta"))
    change(folder, lambda weights: {n: w for n, w in weights.items() if "classifier" not in n})
    change(folder, renamed("bert.", ""))
    found, expected = load_model(str(folder), 2, seed=0), small_model("bert").state_dict()
    for name, weight in found.state_dict().items():
        assert "classifier" in name or torch.equal(weight, expected[name])


# --- The files that transformers reads ---------------------------------------------------------


def in_shards(folder: Path) -> None:
    """Lay weights out as large models are."""
    weights = load_file(folder / "model.safetensors")
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {key: names[number % 2] for number, key in enumerate(sorted(weights))}
    for name in names:
        part = {key: weights[key] for key in weights if places[key] == name}
        save_file(part, folder / name, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    "stray", ["model-00003-of-00003.safetensors", "model.fp16.safetensors", "optimizer.safetensors"]
)
def test_weights_that_lie_beside_a_models_are_not_its(
    stray: str, sharded: bool, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("roberta")
    if sharded:
        in_shards(folder)
    before = model_digest.__wrapped__(folder)
    save_file({"roberta.encoder.layer.2.output.dense.bias": torch.ones(32)}, folder / stray)
    assert model_digest.__wrapped__(folder) == before
    (folder / stray).write_bytes(b"cut off")
    assert model_digest.__wrapped__(folder) == before
    found, expected = load_model(str(folder), 2, seed=0), small_model("roberta").state_dict()
    for name, weight in found.state_dict().items():
        assert "classifier" in name or torch.equal(weight, expected[name])
    assert len(weight_files(folder)) == 1 + sharded
    assert folder / stray not in weight_files(folder)


@pytest.mark.parametrize("lost", [WORDS, "classifier.bias"])
def test_an_index_that_names_a_weight_which_its_shard_lacks(
    lost: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("bert")
    in_shards(folder)
    shard = next(path for path in weight_files(folder) if lost in load_file(path))
    kept = {name: weight for name, weight in load_file(shard).items() if name != lost}
    save_file(kept, shard, {"format": "pt"})
    assert refusal(folder) == f"{shard.name} lacks '{lost}', which {INDEX} says it has"


@pytest.mark.parametrize("file", ["bpe.codes", "spm.model", "dict.txt", "tokenizer.4.0.0.json"])
def test_a_tokenisers_file_counts(file: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("roberta")
    digests = [model_digest.__wrapped__(folder)]
    for content in ("a b\n", "b a\n"):
        (folder / file).write_text(content)
        digests.append(model_digest.__wrapped__(folder))
    assert len(set(digests)) == 3
    (folder / "README.md").write_text("what nothing reads")
    assert model_digest.__wrapped__(folder) == digests[-1]


@pytest.mark.parametrize("file", ["spm.model", "sentencepiece.bpe.model", "vocab.json"])
def test_a_vocabulary_may_have_many_names(file: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("deberta-v2")
    (folder / "vocab.txt").rename(folder / file)
    assert model_config(str(folder))["model_type"] == "deberta-v2"


def test_all_that_a_tokeniser_reads_is_fetched_from_the_hub(
    copy_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str, revision: str, **how: Any) -> str:
        if how.get("local_files_only"):
            raise LocalEntryNotFoundError("not cached")
        asked.extend(how["allow_patterns"])
        return str(folder)

    folder = copy_of("roberta")
    monkeypatch.setattr(pretrained, "snapshot_download", fetch)
    assert pretrained.model_folder("org/bertweet", "0" * 40) == folder
    for file in (*pretrained.TOKENISER_FILES, "tokenizer.4.0.0.json", "model.safetensors"):
        assert any(fnmatch(file, pattern) for pattern in asked), file
    assert not any(fnmatch("pytorch_model.bin", pattern) for pattern in asked)


def test_all_files_of_all_tokenisers_are_known() -> None:
    """Those that the tokenisers of transformers name, whichever may be a folder's."""
    read: set[str] = set()
    for path in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if ast.unparse(node).startswith("VOCAB_FILES_NAMES = {"):
                read |= set(ast.literal_eval(node.value).values())  # type: ignore[attr-defined]
    assert {"bpe.codes", "spm.model", "sentencepiece.bpe.model"} <= read
    assert read <= set(pretrained.TOKENISER_FILES)
