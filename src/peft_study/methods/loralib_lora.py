"""LoRA as the paper's authors implement it in `loralib`: the second reference."""

from functools import partial

import loralib
from transformers import PreTrainedModel

from peft_study.encoders.backbone import projections
from peft_study.methods.saved import adapter_config, initialise, lora_state
from peft_study.run_config import LoraSettings

__all__ = ["adapt", "adapter_config", "adapter_state"]


def adapt(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PreTrainedModel:
    """Freeze `model` and put loralib's layers into it, in place. Otherwise as `lora.adapt`."""
    for path, linear in projections(model, list(settings.targets)).items():
        sizes = linear.in_features, linear.out_features, settings.r
        like = {"bias": linear.bias is not None, "device": linear.weight.device}
        layer = loralib.Linear(
            *sizes, settings.alpha, settings.dropout, merge_weights=False, **like
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        model.set_submodule(path, layer)
    loralib.mark_only_lora_as_trainable(model)
    initialise(adapter_state(model), seed, settings.init_std)
    return model


adapter_state = partial(lora_state, kind=loralib.Linear)
