"""Pretrained encoders with a fresh task head, under the study's canonical weight names."""

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, logging

from peft_study.architectures import architecture, model_config, model_folder
from peft_study.errors import StudyError


def load_model(name: str, num_outputs: int, seed: int) -> PreTrainedModel:
    """Load a pretrained encoder in float32 with a task head drawn from `seed`.

    Args:
        name: `model.name` of the parameters.
        num_outputs: width of the head; 1 for regression.
        seed: seeds the global generator, from which transformers draws the head.

    Raises:
        StudyError: the model's folder is incomplete or its architecture unknown.
    """
    model_config(name)
    logging.set_verbosity_error()  # that the head is fresh is the point, not a warning
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        model_folder(name),
        num_labels=num_outputs,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
    )
    return model


def projections(model: PreTrainedModel, weights: list[str]) -> dict[str, nn.Linear]:
    """Return the attention projections named by `weights`, by module path, in layer order.

    Args:
        model: a classifier of a known architecture.
        weights: canonical names out of query, key, value, output.

    Raises:
        StudyError: the architecture is unknown.
    """
    names = architecture(model.config.model_type)
    found = {}
    for layer in range(model.config.num_hidden_layers):
        for weight, suffix in names.projections.items():
            if weight in weights:
                path = f"{names.base}.encoder.layer.{layer}.{suffix}"
                found[path] = model.get_submodule(path)
    return found  # type: ignore[return-value]


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` where `path` says, in place."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters of the task head by name: what pre-training does not provide."""
    heads = architecture(model.config.model_type).head
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.split(".", 1)[0] in heads
    }


def set_head(model: PreTrainedModel, head: str) -> None:
    """Make the task head `trained` or `frozen`, whatever the method left it as."""
    if head not in ("trained", "frozen"):
        raise StudyError(f"train.head: got '{head}'; must be 'trained' or 'frozen'")
    for parameter in head_parameters(model).values():
        parameter.requires_grad = head == "trained"
