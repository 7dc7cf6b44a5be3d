"""What the three LoRA implementations share: how A and B start, and how they are saved."""

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_parameters, projections
from peft_study.study import LoraParams

PEFT_PREFIX = "base_model.model."


def initialise(state: dict[str, nn.Parameter], seed: int) -> None:
    """Draw A (r, in) Kaiming-uniform with a = sqrt(5) and set B (out, r) to zero.

    With one seed, every implementation starts from the same A. Kaiming-uniform is what loralib and
    PEFT do; the paper's section 4.1 names a Gaussian.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in state.items():
            if ".lora_A." in name:
                drawn = torch.empty(parameter.shape, device="cpu")
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                parameter.copy_(drawn)
            else:
                parameter.zero_()


def adapter_config(model: PreTrainedModel, params: LoraParams) -> dict[str, Any]:
    """Describe the adapter as PEFT's `adapter_config.json`, for `PeftModel.from_pretrained`."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": None,
        "r": params.r,
        "lora_alpha": params.alpha,
        "lora_dropout": params.dropout,
        "target_modules": sorted(projections(model, list(params.targets))),
        "modules_to_save": sorted({name.split(".")[0] for name in head_parameters(model)}),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_dora": False,
        "use_rslora": False,
        "inference_mode": True,
    }
