"""Any tuner of PEFT that changes modules, by PEFT's own configuration.

PEFT's layers are put into the model in place. What PEFT leaves to its training scripts is done
here: AdaLoRA's budget and its orthogonality term, and a seed for every random choice.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields
from enum import Enum
from io import StringIO
from typing import Any, cast

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.architectures import architecture
from peft_study.encoders.backbone import head_modules, head_parameters
from peft_study.errors import StudyError, first_line, nearest
from peft_study.methods.peft_types import SET
from peft_study.methods.saved import initialise
from peft_study.run_config import PEFT_PREFIX, PeftSettings, drawn_from

_NAME, _AROUND = "default", "around"
_ADALORA_STEPS = 10**9  # until the number of steps is known
logging.getLogger("peft").setLevel(logging.ERROR)


def adapt(model: PreTrainedModel, settings: PeftSettings, seed: int) -> PreTrainedModel:
    """Freeze a classifier and let PEFT put its layers into it, in place.

    Then only these require gradients. All that PEFT draws, places of weights included, follows
    `seed`, unless the configuration names a seed, as that of a saved adapter does.

    Raises StudyError: PEFT refuses the configuration, or it does not fit the model.
    """
    torch.manual_seed(seed)
    config = peft_config(model, settings, seed)
    model.requires_grad_(False)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):  # FRoD draws progress bars
            warnings.simplefilter("ignore")
            around = peft.get_peft_model(model, config)
    # What a configuration may ask of a layer, PEFT meets in many ways.
    except (ArithmeticError, AssertionError, AttributeError, LookupError) as error:
        raise StudyError(f"PEFT refuses it: {first_line(error)}") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"PEFT refuses it: {first_line(error)}") from None
    model.__dict__[_AROUND] = around  # no module of the model, which would hold itself
    _check_places(model, settings)
    state = adapter_state(model)
    if settings.config["peft_type"] == "LORA" and config.init_lora_weights is True:
        low = {n: p for n, p in state.items() if n.endswith((".lora_A.weight", ".lora_B.weight"))}
        initialise(low, seed, settings.init_std)
    if settings.config["peft_type"] == "ADALORA":
        model.__dict__["training_hooks"] = AdaLora(model)
    return model


def wrapped(model: PreTrainedModel) -> peft.PeftModel:
    """Return PEFT's model around an adapted classifier."""
    return cast(peft.PeftModel, model.__dict__[_AROUND])


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return what PEFT saves of an adapter, live, by its names: parameters, and fixed tensors."""
    around = wrapped(model)
    with _whole_ranks(around):
        state = around.state_dict(keep_vars=True)
        found = peft.get_peft_model_state_dict(around, state, save_embedding_layers=False)
    head = {PEFT_PREFIX + name for name in head_parameters(model)}
    return {name: tensor for name, tensor in found.items() if name not in head}


def adapter_config(model: PreTrainedModel, settings: PeftSettings) -> dict[str, object]:
    """Describe the adapter as PEFT's `adapter_config.json`, for `PeftModel.from_pretrained`."""
    with _whole_ranks(wrapped(model)):
        described = _plain(wrapped(model).peft_config[_NAME].to_dict())
    return described | {
        "base_model_name_or_path": None,
        "inference_mode": True,
        "modules_to_save": sorted(head_modules(model)),
        "task_type": "SEQ_CLS",
    }


def peft_config(model: PreTrainedModel, settings: PeftSettings, seed: int) -> peft.PeftConfig:
    """Return PEFT's configuration of `settings`, with module names of `model`, and a seed.

    Raises StudyError: PEFT does not know a key, or refuses a value.
    """
    values = dict(settings.config)
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(values.pop("peft_type"))]
    known = {field.name for field in fields(kind)} - {*SET, "peft_type"}
    for key in sorted(set(values) - known):
        raise StudyError(f"{key}: unknown key of PEFT's {kind.__name__}; {nearest(key, known)}")
    projections = architecture(model.config.model_type).projections
    for key, value in values.items():
        if key.endswith("_modules") and isinstance(value, list):
            values[key] = [projections.get(name, name) for name in value]
    if values.get("target_modules") == "all-linear":
        heads = tuple(f"{module}." for module in head_modules(model))
        within = [name for name, _ in model.named_modules() if f"{name}.".startswith(heads)]
        values.setdefault("exclude_modules", within)
    values = dict.fromkeys(drawn_from(known), seed) | values
    if kind is peft.AdaLoraConfig:
        values["total_step"] = _ADALORA_STEPS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**values)
    except (ArithmeticError, ImportError, LookupError, TypeError, ValueError) as error:
        raise StudyError(f"PEFT refuses it: {first_line(error)}") from None


class AdaLora:
    """What AdaLoRA's training does beside a step (Zhang et al. 2023, sections 3.1 to 3.3)."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.tuner = wrapped(model).base_model
        self.config = wrapped(model).peft_config[_NAME]

    def begin(self, steps: int) -> None:
        """Plan the budget of ranks over the optimiser steps of a run.

        Raises StudyError: no rank would ever be reallocated: the run is too short for the warm-ups
        and the interval that the configuration asks for, or its budget does not fall.
        """
        init, final, every = self.config.tinit, self.config.tfinal, self.config.deltaT
        if self.config.target_r >= self.config.init_r:
            asked = f"target_r {self.config.target_r} is not below init_r {self.config.init_r}"
            raise StudyError(f"AdaLoRA: {asked}, so that nothing is reallocated; lower target_r")
        if every < 1:
            raise StudyError(f"AdaLoRA: deltaT: got {every}; must be at least 1")
        if init + final >= steps:
            asked = f"tinit {init} and tfinal {final}"
            raise StudyError(
                f"AdaLoRA: {asked} leave none of {steps} steps for the budget to fall; lower them"
            )
        # PEFT reallocates at multiples of deltaT between the two, and where tfinal begins.
        if not final and (init // every + 1) * every >= steps:
            asked = f"no step after tinit {init} and before {steps} is a multiple of deltaT {every}"
            raise StudyError(f"AdaLoRA: {asked}, so that nothing is reallocated; lower deltaT")
        self.tuner.rankallocator.set_total_step(steps)

    def penalty(self) -> Tensor:
        """Return the term of the loss, a scalar, that keeps P and Q orthogonal (equation 4)."""
        gaps = []
        for name, parameter in self.model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
                gaps.append(torch.norm(product - torch.eye(len(product), device=product.device)))
        return self.config.orth_reg_weight * torch.stack(gaps).mean()

    def after_step(self, step: int) -> None:
        """Update importances and masks by the gradients of step `step`, counted from 0."""
        self.tuner.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """Return the importances, live, by name; none before the first step."""
        allocator = self.tuner.rankallocator
        kinds = {name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        return {f"{kind}/{name}": t for kind, of in kinds.items() for name, t in of.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            getattr(self.tuner.rankallocator, kind)[name] = tensor


def _check_places(model: PreTrainedModel, settings: PeftSettings) -> None:
    """Check which modules PEFT has adapted.

    Raises StudyError: one is of the head, which is trained as a whole; one is no LayerNorm, though
    a LayerNorm's weights alone are few; or a name has matched none.
    """
    kind, projections = (
        settings.config["peft_type"],
        architecture(model.config.model_type).projections,
    )
    layers = {path: m for path, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    for path, layer in layers.items():
        if f"{path}.".startswith(tuple(f"{module}." for module in head_modules(model))):
            raise StudyError(
                f"target_modules: '{path}' is of the head, which is trained as a whole"
            )
        if kind == "LN_TUNING" and not isinstance(layer.get_base_layer(), nn.LayerNorm):
            found = f"'{path}' is no LayerNorm, and would be trained as a whole"
            raise StudyError(f"target_modules: {found}")
    for key in ("target_modules", "feedforward_modules"):
        names = settings.config.get(key)
        for name in names if isinstance(names, list) else ():
            ending = f".{projections.get(name, name)}"
            if not any(f".{path}".endswith(ending) for path in layers):
                raise StudyError(f"{key}: no module of the encoder is called '{name}'")


@contextmanager
def _whole_ranks(around: peft.PeftModel) -> Iterator[None]:
    """Let AdaLoRA be saved with all its ranks: those without budget have a singular value of 0."""
    config: Any = around.peft_config[_NAME]
    pattern = getattr(config, "rank_pattern", None) if config.peft_type == "ADALORA" else None
    if pattern:
        config.rank_pattern = None
    try:
        yield
    finally:
        if pattern:
            config.rank_pattern = pattern


def _plain(value: Any) -> Any:
    """Return a configuration's values as JSON has them; sets, which have no order, sorted."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(map(_plain, value))
        case list() | tuple():
            return [_plain(item) for item in value]
        case Enum():
            return value.value
    return copy.copy(value)
