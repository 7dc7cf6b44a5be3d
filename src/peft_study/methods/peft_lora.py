"""LoRA as Hugging Face's PEFT implements it: the reference that ours is checked against."""

import peft
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import projections
from peft_study.methods.saved import PEFT_PREFIX, adapter_config, initialise
from peft_study.study import LoraParams

__all__ = ["adapt", "adapter_config", "adapter_state"]

_NAME = "default"


def adapt(model: PreTrainedModel, params: LoraParams, seed: int) -> PreTrainedModel:
    """Freeze `model` and let PEFT inject its LoRA layers, in place. Otherwise as `lora.adapt`."""
    config = peft.LoraConfig(
        r=params.r,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(projections(model, list(params.targets))),
    )
    peft.inject_adapter_in_model(config, model, adapter_name=_NAME)
    initialise(adapter_state(model), seed)
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the live A and B matrices by the names that PEFT saves them under."""
    return {
        f"{PEFT_PREFIX}{path}.{name}.weight": getattr(module, name)[_NAME].weight
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer)
        for name in ("lora_A", "lora_B")
    }
