"""AdapterH: bottleneck layers after self-attention and after the feed-forward network.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1, as
implemented by the `adapters` library: unlike the paper, it leaves the LayerNorms frozen.
"""

import logging
from dataclasses import asdict

import adapters
import torch
from torch import nn
from transformers import PreTrainedModel

from peft_study.run_config import AdapterHSettings

_NAME = "adapter_h"

# While it adds adapters the library warns that none is active yet.
logging.getLogger("adapters.model_mixin").setLevel(logging.ERROR)


def adapt(model: PreTrainedModel, settings: AdapterHSettings, seed: int) -> PreTrainedModel:
    """Freeze a classifier and add two bottleneck adapters to each of its layers, in place.

    Then only the adapters require gradients; `seed` seeds the global generator, from which they
    are drawn.
    """
    torch.manual_seed(seed)
    # The library takes a ratio and rounds down; half a unit more survives the rounding.
    ratio = model.config.hidden_size / (settings.bottleneck + 0.5)
    config = adapters.DoubleSeqBnConfig(reduction_factor=ratio, non_linearity=settings.activation)
    adapters.init(model)  # which gives the model another `add_adapter`
    model.add_adapter(_NAME, config=config, set_active=True)  # type: ignore[call-arg]
    model.requires_grad_(False)
    for parameter in adapter_state(model).values():
        parameter.requires_grad = True
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the adapters' live parameters by their names in the model."""
    marker = f".adapters.{_NAME}."
    return {name: value for name, value in model.named_parameters() if marker in name}


def adapter_config(model: PreTrainedModel, settings: AdapterHSettings) -> dict[str, object]:
    """Describe the adapters."""
    return {"method": "adapter_h"} | asdict(settings) | {"model_type": model.config.model_type}
