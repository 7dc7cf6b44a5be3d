"""Pretrained encoders with a fresh task head, under the study's canonical weight names."""

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    logging,
)

from peft_study.encoders.architectures import architecture
from peft_study.encoders.layout import known_keys
from peft_study.encoders.pretrained import model_config, model_folder
from peft_study.errors import StudyError, first_line


def load_model(
    name: str, num_outputs: int, seed: int, revision: str | None = None
) -> PreTrainedModel:
    """Load a pretrained encoder in float32, as `model_folder` finds it, with a fresh task head.

    The head has `num_outputs` units, one for a regression. It is drawn as in pre-training, from the
    global generator, which `seed` seeds; a head that the folder holds is not used. Where the folder
    holds no pooler and the classifier reads through one, as in a BERT that was trained to fill in
    words alone, the pooler is drawn as well, and is then part of the head.

    Raises StudyError if the folder is incomplete, its architecture unknown, or an encoder weight is
    missing, which would otherwise stay random.
    """
    found = model_config(name, revision)
    names = architecture(found["model_type"])
    logging.set_verbosity_error()  # that the head is fresh is the point, not a warning
    logging.disable_progress_bar()  # of shards
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            model_folder(name, revision),
            config=AutoConfig.for_model(**known_keys(found) | {"num_labels": num_outputs}),
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    # What a configuration or a file of weights may hold, transformers meets in many ways.
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"model.name is '{name}': cannot be loaded: {first_line(error)}") from None
    unfit = [*report["missing_keys"], *report["mismatched_keys"]]
    heads = names.head
    if names.pooler and names.pooler not in heads:
        pooler = {key for key, _ in model.named_parameters() if _within(key, (names.pooler,))}
        heads += (names.pooler,) if pooler <= set(report["missing_keys"]) else ()
    model.config.task_head = heads
    if missing := sorted(key for key in unfit if not _within(key, heads)):
        raise StudyError(
            f"model.name is '{name}': its weights lack '{missing[0]}' in the shape that "
            f"config.json asks for ({len(missing)} such weights)"
        )
    torch.manual_seed(seed)
    for head in heads:
        for module in model.get_submodule(head).modules():
            model._init_weights(module)
    return model


def projections(model: PreTrainedModel, weights: list[str]) -> dict[str, nn.Linear]:
    """Return the attention projections named by `weights`, by module path, in layer order."""
    names = architecture(model.config.model_type)
    paths = [
        f"{names.base}.encoder.layer.{layer}.{suffix}"
        for layer in range(model.config.num_hidden_layers)
        for weight, suffix in names.projections.items()
        if weight in weights
    ]
    return {path: model.get_submodule(path) for path in paths}  # type: ignore[misc]


def head_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the paths of the modules of the task head: what pre-training did not provide."""
    drawn: tuple[str, ...] | None = getattr(model.config, "task_head", None)
    return architecture(model.config.model_type).head if drawn is None else drawn


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters of the task head by name."""
    heads = head_modules(model)
    return {name: own for name, own in model.named_parameters() if _within(name, heads)}


def set_head(model: PreTrainedModel, head: str) -> None:
    """Make the task head `trained` or `frozen`, whatever the method left it as."""
    for parameter in head_parameters(model).values():
        parameter.requires_grad = head == "trained"


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)
