"""Methods: how a backbone is adapted. One module a method, all of one shape.

Each has `adapt(model, params, seed)`, which freezes and extends a model in place,
`adapter_state(model)`, the parameters it added (or, for full fine-tuning, those of the encoder) by
the names they are saved under, and `adapter_config(model, params)`, what is saved beside them. One
whose update can be merged into the weights may have `merged(model)`, a context for inference.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_parameters
from peft_study.errors import StudyError
from peft_study.files import read_json, replacing, write_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
# What a saved adapter's description says beyond how to compute with it. Names of targets may be
# patterns; the tensors' names decide.
DESCRIPTIVE = {
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "modules_to_save",
    "target_modules",
    "task_type",
}


class Method(Protocol):
    """The shape of a method's module."""

    def adapt(self, model: PreTrainedModel, params: Any, seed: int) -> PreTrainedModel: ...
    def adapter_state(self, model: PreTrainedModel) -> dict[str, nn.Parameter]: ...
    def adapter_config(self, model: PreTrainedModel, params: Any) -> dict[str, Any]: ...


def load_method(name: str) -> Method:
    """Import the module of a method; `name` has been checked by `peft_study.study`."""
    module: Any = import_module(f"{__name__}.{name}")
    return module


def count_trainable(model: PreTrainedModel, method: Method) -> dict[str, int]:
    """Count trainable parameters: of the adapter, of the task head, and of both."""
    adapter = sum(p.numel() for p in method.adapter_state(model).values() if p.requires_grad)
    head = sum(p.numel() for p in head_parameters(model).values() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if adapter + head != total:
        raise RuntimeError(f"{total} parameters train, but adapter {adapter} + head {head}")
    return {"adapter": adapter, "head": head, "total": total}


def save_adapter(model: PreTrainedModel, method: Method, params: Any, directory: Path) -> None:
    """Write the adapter and the head as safetensors, with a JSON description, into `directory`.

    For the three LoRA methods this is PEFT's format, which `peft.PeftModel.from_pretrained` loads.
    """
    tensors = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in (method.adapter_state(model) | _saved_head(model)).items()
    }
    with replacing(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(directory / CONFIG_FILE, method.adapter_config(model, params))


def load_adapter(
    model: PreTrainedModel, method: Method, params: Any, directory: Path, head: bool = True
) -> None:
    """Copy a saved adapter into an adapted `model`, and its head unless `head` is False.

    Raises:
        StudyError: the adapter's description or a tensor's shape is another than that of `params`,
            as after a change of alpha, rank or targets.
    """
    stored = read_json(directory / CONFIG_FILE)
    for key, value in method.adapter_config(model, params).items():
        if key not in DESCRIPTIVE and stored.get(key, value) != value:
            raise StudyError(
                f"{directory / CONFIG_FILE}: {key} is {stored[key]!r}, this adapter's is {value!r}"
            )
    path, tensors = directory / WEIGHTS_FILE, load_file(directory / WEIGHTS_FILE)
    wanted = method.adapter_state(model) | (_saved_head(model) if head else {})
    hint = "it was trained with another rank, bottleneck or set of targets"
    if extra := sorted(set(tensors) - set(wanted) - set(_saved_head(model))):
        raise StudyError(f"{path}: '{extra[0]}' has no place in this adapter; {hint}")
    _copy(tensors, wanted, path, hint)


def is_encoder(directory: Path) -> bool:
    """Say whether `directory` holds a fully fine-tuned encoder rather than an adapter."""
    return read_json(directory / CONFIG_FILE).get("method") == "full_ft"


def load_encoder(model: PreTrainedModel, directory: Path) -> None:
    """Copy a fully fine-tuned encoder, without its head, into a `model` not yet adapted.

    Raises:
        StudyError: the encoder is of another architecture or size.
    """
    head = head_parameters(model)
    wanted = {name: p for name, p in model.named_parameters() if name not in head}
    path = directory / WEIGHTS_FILE
    _copy(load_file(path), wanted, path, "it was trained on another model")


def _copy(
    tensors: dict[str, Tensor], wanted: dict[str, nn.Parameter], path: Path, hint: str
) -> None:
    with torch.no_grad():
        for name, parameter in wanted.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != tuple(parameter.shape):
                needed = tuple(parameter.shape)
                raise StudyError(f"{path}: '{name}' has shape {found}, not {needed}; {hint}")
            parameter.copy_(tensors[name])


def _saved_head(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    return {f"base_model.model.{name}": value for name, value in head_parameters(model).items()}
