"""LoRA as Hugging Face's PEFT implements it: the reference that ours is checked against."""

from functools import partial

import peft
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from peft_study.encoders.backbone import projections
from peft_study.methods.saved import adapter_config, initialise, lora_state
from peft_study.run_config import LoraSettings

__all__ = ["adapt", "adapter_config", "adapter_state"]


def adapt(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PreTrainedModel:
    """Freeze `model` and let PEFT inject its LoRA layers, in place. Otherwise as `lora.adapt`."""
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(projections(model, list(settings.targets))),
    )
    peft.inject_adapter_in_model(config, model)
    initialise(adapter_state(model), seed, settings.init_std)
    return model


adapter_state = partial(lora_state, kind=LoraLayer, part=".default.weight")
