"""Pretrained encoders with a fresh task head, under the study's canonical weight names."""

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, logging

from peft_study.encoders.architectures import architecture
from peft_study.encoders.pretrained import model_config, model_folder
from peft_study.errors import StudyError


def load_model(
    name: str, num_outputs: int, seed: int, revision: str | None = None
) -> PreTrainedModel:
    """Load a pretrained encoder in float32, as `model_folder` finds it, with a fresh task head.

    The head has `num_outputs` units, one for a regression. It is drawn as in pre-training, from the
    global generator, which `seed` seeds; a head that the folder holds is not used.

    Raises StudyError if the folder is incomplete, its architecture unknown, or an encoder weight is
    missing, which would otherwise stay random.
    """
    heads = architecture(model_config(name, revision)["model_type"]).head
    logging.set_verbosity_error()  # that the head is fresh is the point, not a warning
    model, report = AutoModelForSequenceClassification.from_pretrained(
        model_folder(name, revision),
        num_labels=num_outputs,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    unfit = [*report["missing_keys"], *report["mismatched_keys"]]
    if missing := sorted(key for key in unfit if key.split(".")[0] not in heads):
        raise StudyError(
            f"model.name is '{name}': its weights lack '{missing[0]}' in the shape that "
            f"config.json asks for ({len(missing)} such weights)"
        )
    torch.manual_seed(seed)
    for head in heads:
        for module in getattr(model, head).modules():
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


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters of the task head by name: what pre-training does not provide."""
    heads = architecture(model.config.model_type).head
    return {name: own for name, own in model.named_parameters() if name.split(".")[0] in heads}


def set_head(model: PreTrainedModel, head: str) -> None:
    """Make the task head `trained` or `frozen`, whatever the method left it as."""
    for parameter in head_parameters(model).values():
        parameter.requires_grad = head == "trained"
