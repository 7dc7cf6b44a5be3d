"""Methods as a study declares them: the blocks of those built in, and recipes that are like them.

A recipe says in `params.yaml` what it is `like`, and what differs: a method of the table, one of
the libraries whose methods it may choose from, or another recipe.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from peft_study.encoders.architectures import Weight
from peft_study.errors import nearest
from peft_study.methods import KINDS, METHODS, MethodRow, adapters_words, peft_types
from peft_study.methods.adapters_words import WORDS, word_of
from peft_study.methods.peft_types import PEFT_TYPES
from peft_study.own_files import Name
from peft_study.records import Record
from peft_study.run_config import (
    AdapterHSettings,
    AdaptersSettings,
    BitFitSettings,
    FullFtSettings,
    LoraSettings,
    PeftSettings,
    PredictionsSettings,
    Settings,
)

NAME, LONGEST = re.compile("[a-z][a-z0-9_-]*"), 40  # it is part of names of stages and of files
# Names of files and stages beside those of methods, and those that Windows keeps for itself.
RESERVED = {"sweep", "trials", "variants", "aux", "con", "nul", "prn"}
Words = Annotated[str, Field(min_length=1, max_length=60)]


class Block(BaseModel):
    """A block of parameters: no key but those it names, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Overrides(Block):
    """Training hyperparameters that a method, a task, or a method on a task may set for itself."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] | None = None
    adam_epsilon: Annotated[float, Field(gt=0)] | None = None
    head: Literal["trained", "frozen"] | None = None


class LoraParams(Overrides):
    """`lora`: low-rank adaptation (Hu et al. 2021, section 4.1), for all three implementations."""

    r: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[list[Weight], Field(min_length=1)]
    init_std: Annotated[float, Field(gt=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class AdapterHParams(Overrides):
    """`adapter_h`: bottleneck adapters after attention and after the FFN (Houlsby et al. 2019)."""

    bottleneck: Annotated[int, Field(ge=1)]
    activation: Literal["relu", "gelu", "swish", "tanh"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class FullFtParams(Overrides):
    """`full_ft`: every parameter of the model is trained."""

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    save_weights: bool


class RecipeParams(Overrides):
    """`recipes.<name>`: a method that is `like` another, and what differs.

    `published` is what tables of papers call it, where that is not its name.
    Which of the keys below it may have depends on what it is like: see `OWN_KEYS`.
    """

    like: Name
    label: Words | None = None
    citation: Words | None = None
    published: Name | None = None
    config: dict[str, JsonValue] | Name | None = None
    folder: Name | None = None
    leave_out: list[Annotated[int, Field(ge=0)]] | None = None
    r: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    targets: Annotated[list[Weight], Field(min_length=1)] | None = None
    init_std: Annotated[float, Field(gt=0)] | None = None
    bottleneck: Annotated[int, Field(ge=1)] | None = None
    activation: Literal["relu", "gelu", "swish", "tanh"] | None = None
    save_weights: bool | None = None


_LORA = ("r", "alpha", "dropout", "targets", "init_std")
# What a recipe may say besides hyperparameters of training, by what it comes down to.
OWN_KEYS: dict[str, tuple[str, ...]] = {
    "lora": _LORA,
    "peft_lora": (*_LORA, "config"),
    "loralib_lora": _LORA,
    "adapter_h": ("bottleneck", "activation"),
    "full_ft": ("save_weights",),
    "peft": ("config",),
    "adapters": ("config", "leave_out"),
    "bitfit": (),
    "predictions": ("folder",),
}
_ALWAYS = {"like", "label", "citation", "published"}

Recipes = Mapping[str, RecipeParams]
Blocks = Mapping[str, LoraParams | AdapterHParams | FullFtParams]


class Declared(Record):
    """A method of a study: its row of the table, with the recipe's own label, and its settings.

    `names` are those whose hyperparameters it has, from the block of the parameters on to its own:
    the later goes first. `training` are the hyperparameters that these say.
    """

    name: str
    row: MethodRow
    settings: Settings
    names: tuple[str, ...]
    training: dict[str, object]
    save_weights: bool
    citation: str | None = None
    published: str | None = None


def declare(name: str, recipes: Recipes, blocks: Blocks) -> Declared:
    """Return a method, built in or a recipe, that `problems` finds nothing wrong with."""
    line = lineage(name, recipes)
    trained = is_trained(name, recipes)
    root, chain = line[0], [recipes[recipe] for recipe in line[1:]]
    row = METHODS[root] if root in METHODS else KINDS[root]
    block = blocks[row.block] if row.block else None
    said: dict[str, Any] = block.model_dump(exclude_none=True) if block else {}
    config: dict[str, Any] = {}
    for recipe in chain:
        own = recipe.model_dump(exclude_none=True)
        if isinstance(recipe.config, dict):
            config |= own.pop("config")
        said |= own
    settings = _settings(root, said, config)
    if isinstance(settings, PeftSettings):  # a LoRA of PEFT's by its configuration, too
        row = replace(KINDS["peft"], block=row.block)
    if chain:
        row = replace(row, label=chain[-1].label or name, family=_family(row, settings))
    return Declared(
        name=name,
        row=row,
        settings=settings,
        names=(*filter(None, (row.block,)), *line[1:]),
        training={key: said[key] for key in Overrides.model_fields if key in said}
        | ({} if trained else {"learning_rate": 0.0}),
        save_weights=trained and (root != "full_ft" or said["save_weights"]),
        citation=chain[-1].citation if chain else None,
        published=chain[-1].published if chain else None,
    )


def lineage(name: str, recipes: Recipes) -> list[str]:
    """Return what a method comes down to, then the recipes from there to itself.

    The first is in the table of methods, unless a recipe is like what is not there, or like itself.
    """
    line = [name]
    if name not in recipes:
        return line
    while line.count(line[0]) == 1:
        line.insert(0, recipes[line[0]].like)
        # A recipe may have a kind's name: what is `like: bitfit` is like the kind.
        if line[0] in KINDS or line[0] not in recipes:
            break
    return line


def is_trained(name: str, recipes: Recipes) -> bool:
    """Tell whether a method is trained here, and not elsewhere, so that only predictions are."""
    return lineage(name, recipes)[0] != "predictions"


def problems(recipes: Recipes, taken: Iterable[str]) -> list[str]:
    """Return a line for each mistake; `taken` are names that other parameters have."""
    found = []
    for name, recipe in recipes.items():
        key = f"recipes.{name}"
        built_in = {*METHODS, *KINDS}
        if name in METHODS:
            found.append(f"{key}: '{name}' is a method's own name already; take another")
        elif name in {*RESERVED, *taken}:
            found.append(f"{key}: '{name}' is the name of something else; take another")
        elif not NAME.fullmatch(name) or len(name) > LONGEST:
            allowed = f"lower-case letters, digits, '_' and '-', a letter first, at most {LONGEST}"
            found.append(f"{key}: got '{name}'; must be {allowed}")
        root, *chain = lineage(name, recipes)
        if root in recipes and root not in KINDS:
            if name == next(other for other in recipes if other in chain):  # once for each circle
                circle = " like ".join(reversed([root, *chain]))
                said = "is a circle; one must be like a method of the table"
                found.append(f"{key}.like: {circle} {said}")
        elif root not in built_in:
            if recipe.like == root:
                known = nearest(root, {*built_in, *recipes} - {name})
                found.append(f"{key}.like: got '{root}'; {known}")
        else:
            found += [f"{key}.{line}" for line in _problems(root, recipe, chain, recipes)]
    return found


def _problems(root: str, recipe: RecipeParams, chain: Sequence[str], recipes: Recipes) -> list[str]:
    allowed, whole = {*_ALWAYS, *OWN_KEYS[root]}, [recipes[name] for name in chain]
    if root != "predictions":
        allowed |= {*Overrides.model_fields}
    elif not any(one.folder for one in whole):
        return ["folder: is missing; add it"]
    found = [
        f"{key}: unknown key for what is like '{root}'; {nearest(key, allowed)}"
        for key in sorted(recipe.model_fields_set - allowed)
    ]
    config, kind = recipe.config, str if root == "adapters" else dict
    if config is not None and "config" in allowed and not isinstance(config, kind):
        form = "adapters' own words, such as 'seq_bn[reduction_factor=8]'"
        form = form if root == "adapters" else "a mapping of PEFT's own keys to values"
        found.append(f"config: got {config!r}; must be {form}")
    if root in ("peft", "adapters") and not any(one.config for one in whole):
        found.append("config: is missing; add it")
    elif not found and root == "adapters" and isinstance(config, str):
        if said := adapters_words.problem(config):
            found.append(f"config: {said}")
    elif not found and isinstance(config, dict):
        merged: dict[str, object] = {"peft_type": "LORA"} if root == "peft_lora" else {}
        for one in whole:
            merged |= one.config if isinstance(one.config, dict) else {}
        if said := peft_types.problem(merged):
            found.append(f"config.{said}")
        if root == "peft_lora" and merged["peft_type"] != "LORA":
            found.append(f"config.peft_type: got {merged['peft_type']!r}; must be 'LORA' here")
    if "learning_rate" in allowed and root in KINDS and not any(one.learning_rate for one in whole):
        found.append("learning_rate: is missing; add it")
    for key in ("targets", "leave_out"):
        items = getattr(recipe, key) or []
        repeated = dict.fromkeys(item for item in items if items.count(item) > 1)
        found += [f"{key}: {item!r} is repeated; name each once" for item in repeated]
    return found


def _settings(root: str, said: Mapping[str, Any], config: dict[str, Any]) -> Settings:
    """Return what decides an adapter, the training apart."""
    match root:
        case "adapter_h":
            return AdapterHSettings(said["bottleneck"], said["activation"])
        case "full_ft":
            return FullFtSettings()
        case "bitfit":
            return BitFitSettings()
        case "adapters":
            return AdaptersSettings(said["config"], tuple(said.get("leave_out", ())))
        case "predictions":
            return PredictionsSettings(said["folder"])
        case "peft":
            return PeftSettings(config)
    lora = LoraSettings(
        **{key: said.get(key) for key in _LORA} | {"targets": tuple(said["targets"])}
    )
    if not config:
        return lora
    own = {"peft_type": "LORA", "r": lora.r, "lora_alpha": lora.alpha}
    own |= {"lora_dropout": lora.dropout, "target_modules": list(lora.targets)}
    return PeftSettings(own | config, lora.init_std)


def _family(row: MethodRow, settings: Settings) -> str:
    """Return the family of a tuner or a word that a recipe has chosen, or of what it is like."""
    if isinstance(settings, PeftSettings):
        return PEFT_TYPES[settings.config["peft_type"]].family
    if isinstance(settings, AdaptersSettings):
        return WORDS[word_of(settings.config)].family
    return row.family
