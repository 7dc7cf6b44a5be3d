"""The table of methods: how a backbone may be adapted, a row each. It imports no PyTorch.

A method is a module of this package with `adapt(model, settings, seed)`, which freezes and extends
a model in place, `adapter_state(model)`, the parameters it added (or, for full fine-tuning, those
of the encoder) by the names they are saved under, and `adapter_config(model, settings)`, what is
saved beside them. One whose update can be merged into the weights has `merged(model)`, a context
for inference. One that does more in training than a step leaves a `TrainingHooks` on the model, as
`training_hooks`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from peft_study.records import Record

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from peft_study.run_config import Settings


class MethodRow(Record):
    """A method.

    Attributes:
        label: what figures and tables call it.
        family: what it changes, `lora`, `adapter` or `full`, say; families share a colour.
        module: of this package; "" of what is not trained here.
        block: its parameters in `params.yaml`; none of what only recipes are like.
        packages: the libraries, besides those of all training, whose versions count.
        paper: who describes it.
        merges: whether its update can be merged into the weights.
        identity: whether it starts as the encoder.
        exported: whether its adapters are saved in PEFT's format.
    """

    label: str
    family: str
    module: str
    block: str | None
    packages: tuple[str, ...] = ()
    paper: str = ""
    merges: bool = False
    identity: bool = True
    exported: bool = False


_LORA = "Hu et al. 2021, section 4.1"
METHODS: dict[str, MethodRow] = {
    "lora": MethodRow(
        *("LoRA (ours)", "lora", "lora", "lora", (), _LORA), merges=True, exported=True
    ),
    "peft_lora": MethodRow(
        *("LoRA (PEFT)", "lora", "peft_lora", "lora", ("peft",), _LORA), merges=True, exported=True
    ),
    "loralib_lora": MethodRow(
        *("LoRA (loralib)", "lora", "loralib_lora", "lora", ("loralib",), _LORA), exported=True
    ),
    "adapter_h": MethodRow(
        *("AdapterH", "adapter", "adapter_h", "adapter_h", ("adapters",)),
        paper="Houlsby et al. 2019, section 2.1",
        identity=False,
    ),
    "full_ft": MethodRow("Full fine-tuning", "full", "full_ft", "full_ft"),
}

# What recipes may be like besides methods: libraries to choose from by their own configuration,
# what has nothing to be set but its training, and what was trained elsewhere.
KINDS: dict[str, MethodRow] = {
    "peft": MethodRow("PEFT", "other", "peft_tuner", None, ("peft",), exported=True),
    "adapters": MethodRow("adapters", "adapter", "adapters_library", None, ("adapters",)),
    "bitfit": MethodRow("BitFit", "selective", "bitfit", None, (), "Zaken et al. 2022, section 2"),
    "predictions": MethodRow("Predictions", "elsewhere", "", None),
}


class TrainingHooks(Protocol):
    """What a method does in training besides a step; `state` returns live tensors by name."""

    def begin(self, steps: int) -> None: ...
    def penalty(self) -> Tensor: ...
    def after_step(self, step: int) -> None: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...


class Method(Protocol):
    """The shape of a method's module."""

    def adapt(self, model: PreTrainedModel, settings: Settings, seed: int) -> PreTrainedModel: ...
    def adapter_state(self, model: PreTrainedModel) -> dict[str, nn.Parameter]: ...
    def adapter_config(self, model: PreTrainedModel, settings: Settings) -> dict[str, object]: ...


def load_method(module: str) -> Method:
    """Import the module of a method, as its row of the table names it."""
    return cast(Method, import_module(f"{__name__}.{module}"))


def training_hooks(model: PreTrainedModel) -> TrainingHooks | None:
    """Return what the method of an adapted model does in training besides a step, if anything."""
    return model.__dict__.get("training_hooks")
