"""Any method of the `adapters` library that changes modules, by the library's own words."""

import logging
from itertools import chain
from typing import cast

import adapters
import torch
from adapters import AdapterConfig
from torch import nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_modules
from peft_study.errors import StudyError, first_line
from peft_study.methods.adapters_words import needs_own_forward
from peft_study.run_config import AdaptersSettings
from peft_study.training.padding import use_own_forward

_NAME = "study"

# While it adds adapters the library warns that none is active yet.
logging.getLogger("adapters.model_mixin").setLevel(logging.ERROR)


def adapt(model: PreTrainedModel, settings: AdaptersSettings, seed: int) -> PreTrainedModel:
    """Freeze a classifier and let the library add what its configuration says, in place.

    Then only the added parameters require gradients, but for those that the library keeps as they
    are drawn; `seed` seeds the global generator, from which it draws.

    Raises StudyError: the library does not know the words, or cannot add that to this model.
    """
    layers = range(model.config.num_hidden_layers)
    if outside := [layer for layer in settings.leave_out if layer not in layers]:
        raise StudyError(f"leave_out: got {outside[0]}; the layers are 0 to {layers[-1]}")
    torch.manual_seed(seed)
    try:
        given = {"leave_out": list(settings.leave_out)} if settings.leave_out else {}
        config = AdapterConfig.load(settings.config, **given)
        adapters.init(model)
        model.add_adapter(_NAME, config=config, set_active=True)  # type: ignore[call-arg]
    # What its words may ask for, the library meets in many ways.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, OSError) as error:
        raise StudyError(f"adapters refuses it: {first_line(error)}") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"adapters refuses it: {first_line(error)}") from None
    if needs_own_forward(settings.config):
        use_own_forward(model)
    model.requires_grad_(False)
    model.train_adapter(_NAME)  # type: ignore[operator]
    if not adapter_state(model):
        raise StudyError("adapters adds nothing to this model by it")
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the added live parameters, and what was drawn beside them, by names in the model."""
    found, heads = {}, tuple(f"{module}." for module in head_modules(model))
    saved = model.state_dict(keep_vars=True)
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        if _NAME in name.split(".") and name in saved and not name.startswith(heads):
            found[name] = value
    return cast(dict[str, nn.Parameter], found)


def adapter_config(model: PreTrainedModel, settings: AdaptersSettings) -> dict[str, object]:
    """Describe what was added."""
    return {
        "method": "adapters",
        "config": settings.config,
        "leave_out": list(settings.leave_out),
        "model_type": model.config.model_type,
    }
