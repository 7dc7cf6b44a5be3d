"""BitFit: of the encoder, the biases alone are trained.

Source: Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
Masked Language-models", section 2.
"""

from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_parameters
from peft_study.run_config import BitFitSettings


def adapt(model: PreTrainedModel, settings: BitFitSettings, seed: int) -> PreTrainedModel:
    """Make the encoder's biases trainable, in place; `settings` and `seed` change nothing here."""
    model.requires_grad_(False)
    for parameter in adapter_state(model).values():
        parameter.requires_grad = True
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the live biases of everything but the head, by their names in the model."""
    head = head_parameters(model)
    found = {name: value for name, value in model.named_parameters() if name not in head}
    return {name: value for name, value in found.items() if name.endswith(".bias")}


def adapter_config(model: PreTrainedModel, settings: BitFitSettings) -> dict[str, object]:
    """Describe the trained biases."""
    return {"method": "bitfit", "model_type": model.config.model_type}
