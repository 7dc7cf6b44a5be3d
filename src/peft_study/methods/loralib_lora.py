"""LoRA as the paper's authors implement it in `loralib`: the second reference."""

import loralib
from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import projections, replace_module
from peft_study.methods.saved import PEFT_PREFIX, adapter_config, initialise
from peft_study.study import LoraParams

__all__ = ["adapt", "adapter_config", "adapter_state"]


def adapt(model: PreTrainedModel, params: LoraParams, seed: int) -> PreTrainedModel:
    """Freeze `model` and put loralib's layers into it, in place. Otherwise as `lora.adapt`."""
    for path, linear in projections(model, list(params.targets)).items():
        layer = loralib.Linear(
            linear.in_features,
            linear.out_features,
            r=params.r,
            lora_alpha=params.alpha,
            lora_dropout=params.dropout,
            merge_weights=False,
            bias=linear.bias is not None,
            device=linear.weight.device,
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        replace_module(model, path, layer)
    loralib.mark_only_lora_as_trainable(model)
    initialise(adapter_state(model), seed)
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the live A and B matrices by the names that PEFT saves them under."""
    return {
        f"{PEFT_PREFIX}{path}.{name}.weight": getattr(module, name)
        for path, module in model.named_modules()
        if isinstance(module, loralib.Linear)
        for name in ("lora_A", "lora_B")
    }
