"""Adapters in files: what is saved of a run, in PEFT's format for LoRA, and how A and B start."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.architectures import architecture
from peft_study.encoders.backbone import head_modules, head_parameters, projections
from peft_study.errors import StudyError
from peft_study.files import read_json, replacing, write_json
from peft_study.methods import Method
from peft_study.run_config import (
    CONFIG_FILE,
    PEFT_PREFIX,
    WEIGHTS_FILE,
    LoraSettings,
    PeftSettings,
    Settings,
    drawn_from,
)

# What a saved adapter's description says beyond how to compute with it. Names of targets may be
# patterns; the tensors' names decide.
DESCRIPTIVE = {
    *("base_model_name_or_path", "inference_mode", "lora_dropout"),
    *("modules_to_save", "revision", "target_modules", "task_type", "total_step"),
}


@torch.no_grad()
def initialise(state: dict[str, nn.Parameter], seed: int, std: float | None) -> None:
    """Draw A (r, in) and set B (out, r) to zero.

    A is normal with deviation `std`, or, without one, Kaiming-uniform with a = sqrt(5), as loralib
    and PEFT draw it; the paper's section 4.1 names a Gaussian, and no deviation. With one seed,
    every implementation starts from the same A.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in state.items():
        if ".lora_A." in name:
            drawn = torch.empty(parameter.shape, device="cpu")
            if std is None:
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            else:
                nn.init.normal_(drawn, std=std, generator=generator)
            parameter.copy_(drawn)
        else:
            parameter.zero_()


def lora_state(model: nn.Module, kind: type[nn.Module], part: str = "") -> dict[str, nn.Parameter]:
    """Return the live A and B of layers of a `kind`, by the names that PEFT saves them under.

    They are the layers' parameters `lora_A` and `lora_B`, or the `part` of these.
    """
    return {
        f"{PEFT_PREFIX}{path}.{name}.weight": module.get_parameter(name + part)
        for path, module in model.named_modules()
        if isinstance(module, kind)
        for name in ("lora_A", "lora_B")
    }


def adapter_config(model: PreTrainedModel, settings: LoraSettings) -> dict[str, object]:
    """Describe the adapter as PEFT's `adapter_config.json`, for `PeftModel.from_pretrained`."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": None,
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": sorted(projections(model, list(settings.targets))),
        "modules_to_save": sorted(head_modules(model)),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_dora": False,
        "use_rslora": False,
        "inference_mode": True,
    }


def count_trainable(model: PreTrainedModel, method: Method) -> dict[str, int]:
    """Count trainable parameters: of the adapter, of the task head, and of both."""
    adapter = sum(p.numel() for p in method.adapter_state(model).values() if p.requires_grad)
    head = sum(p.numel() for p in head_parameters(model).values() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if adapter + head != total:
        raise RuntimeError(f"{total} parameters train, but adapter {adapter} + head {head}")
    return {"adapter": adapter, "head": head, "total": total}


def save_adapter(
    model: PreTrainedModel,
    method: Method,
    settings: Settings,
    directory: Path,
    start: Path | None = None,
) -> None:
    """Write the adapter and the head as safetensors, with a JSON description, into `directory`.

    For the three LoRA methods this is PEFT's format, which `peft.PeftModel.from_pretrained` loads;
    on another encoder than the pretrained one if `start` holds that, as the description then says.
    """
    saved = method.adapter_state(model) | _saved_head(model)
    # Some libraries let several layers share a tensor, which a file of safetensors cannot.
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in saved.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    described = method.adapter_config(model, settings)
    if "base_model_name_or_path" in described and start and is_encoder(start):
        described["base_model_name_or_path"] = "the encoder that the intermediate task trained"
    write_json(directory / CONFIG_FILE, described)


def load_adapter(
    model: PreTrainedModel, method: Method, settings: Settings, directory: Path, head: bool = True
) -> None:
    """Copy a saved adapter into an adapted `model`, and its head unless `head` is False.

    Raises StudyError: the adapter's description or a tensor's shape is not that of `settings`, as
    after a change of alpha, rank or targets.
    """
    described, path = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    stored, tensors = read_json(described), load_file(path)
    for key, value in method.adapter_config(model, settings).items():
        if key not in DESCRIPTIVE and (found := stored.get(key, value)) != value:
            raise StudyError(f"{described}: {key} is {found!r}, this adapter's is {value!r}")
    wanted = method.adapter_state(model) | (_saved_head(model) if head else {})
    hint = "it was trained with another rank, bottleneck or set of targets"
    if extra := sorted(set(tensors) - set(wanted) - set(_saved_head(model))):
        raise StudyError(f"{path}: '{extra[0]}' has no place in this adapter; {hint}")
    _copy(tensors, wanted, path, hint)


def drawn_as(settings: Settings, start: Path) -> Settings:
    """Return `settings` with the seeds that a saved adapter's places of weights were drawn from."""
    if not isinstance(settings, PeftSettings):
        return settings
    stored = read_json(start / CONFIG_FILE)
    return replace(settings, config=settings.config | {k: stored[k] for k in drawn_from(stored)})


def is_encoder(directory: Path) -> bool:
    """Say whether `directory` holds a fully fine-tuned encoder, and no adapter, nor nothing."""
    path = directory / CONFIG_FILE
    return path.is_file() and read_json(path).get("method") == "full_ft"


def load_encoder(model: PreTrainedModel, directory: Path) -> None:
    """Copy a fully fine-tuned encoder, without its head, into a `model` not yet adapted.

    Raises StudyError: the encoder is of another architecture or size.
    """
    head = head_parameters(model)
    wanted = {name: p for name, p in model.named_parameters() if name not in head}
    path = directory / WEIGHTS_FILE
    _copy(load_file(path), wanted, path, "it was trained on another model")


def load_inner_head(model: PreTrainedModel, directory: Path) -> None:
    """Copy the saved head of a run, but for its output layer, into a `model` of the same encoder.

    Of BERT that is nothing: its pooler belongs to the encoder, and has come with it.

    Raises StudyError: the head is of another architecture or size.
    """
    output = architecture(model.config.model_type).output
    head = _saved_head(model).items()
    wanted = {n: p for n, p in head if not n.startswith(f"{PEFT_PREFIX}{output}.")}
    path = directory / WEIGHTS_FILE
    _copy(load_file(path), wanted, path, "it was trained on another model")


@torch.no_grad()
def _copy(
    tensors: dict[str, Tensor], wanted: dict[str, nn.Parameter], path: Path, hint: str
) -> None:
    for name, parameter in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != (needed := tuple(parameter.shape)):
            raise StudyError(f"{path}: '{name}' has shape {found}, not {needed}; {hint}")
        parameter.copy_(tensors[name])


def _saved_head(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    return {PEFT_PREFIX + name: value for name, value in head_parameters(model).items()}
