"""Full fine-tuning: every parameter of the model is trained."""

from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_parameters
from peft_study.run_config import FullFtSettings


def adapt(model: PreTrainedModel, settings: FullFtSettings, seed: int) -> PreTrainedModel:
    """Make every parameter trainable, in place; `settings` and `seed` change nothing here."""
    model.requires_grad_(True)
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the live parameters of everything but the head, by their names in the model."""
    head = head_parameters(model)
    return {name: value for name, value in model.named_parameters() if name not in head}


def adapter_config(model: PreTrainedModel, settings: FullFtSettings) -> dict[str, object]:
    """Describe the fine-tuned weights."""
    return {"method": "full_ft", "model_type": model.config.model_type}
