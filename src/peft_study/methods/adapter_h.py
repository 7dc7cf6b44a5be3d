"""AdapterH: bottleneck layers after self-attention and after the feed-forward network.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1, as
implemented by the `adapters` library: unlike the paper, it leaves the LayerNorms frozen.
"""

import logging
from typing import Any

import adapters
import torch
from torch import nn
from transformers import PreTrainedModel

from peft_study.study import AdapterHParams

_NAME = "adapter_h"

# While it adds adapters the library warns that none is active yet.
logging.getLogger("adapters.model_mixin").setLevel(logging.ERROR)


def adapt(model: Any, params: AdapterHParams, seed: int) -> PreTrainedModel:
    """Freeze `model` and add two bottleneck adapters to each of its layers, in place.

    Args:
        model: a sequence classifier of a known architecture.
        params: bottleneck (units) and activation.
        seed: seeds the global generator, from which the adapters are drawn.

    Returns:
        The same model; only the adapters require gradients.
    """
    torch.manual_seed(seed)
    # The library takes a ratio and rounds down; half a unit more survives the rounding.
    ratio = model.config.hidden_size / (params.bottleneck + 0.5)
    config = adapters.DoubleSeqBnConfig(reduction_factor=ratio, non_linearity=params.activation)
    adapters.init(model)
    model.add_adapter(_NAME, config=config, set_active=True)
    model.requires_grad_(False)
    for parameter in adapter_state(model).values():
        parameter.requires_grad = True
    adapted: PreTrainedModel = model
    return adapted


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the adapters' live parameters by their names in the model."""
    marker = f".adapters.{_NAME}."
    return {name: value for name, value in model.named_parameters() if marker in name}


def adapter_config(model: PreTrainedModel, params: AdapterHParams) -> dict[str, Any]:
    """Describe the adapters."""
    return {
        "method": "adapter_h",
        "bottleneck": params.bottleneck,
        "activation": params.activation,
        "model_type": model.config.model_type,
    }
