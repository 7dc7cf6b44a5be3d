"""The table of methods: how a backbone may be adapted, a row each. It imports no PyTorch.

A method is a module of this package with `adapt(model, settings, seed)`, which freezes and extends
a model in place, `adapter_state(model)`, the parameters it added (or, for full fine-tuning, those
of the encoder) by the names they are saved under, and `adapter_config(model, settings)`, what is
saved beside them. One whose update can be merged into the weights has `merged(model)`, a context
for inference.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from peft_study.records import Record

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from peft_study.run_config import Settings


class MethodRow(Record):
    """A method.

    Attributes:
        label: what figures and tables call it.
        family: `lora`, `adapter` or `full`; methods of one family compute the same.
        module: of this package.
        block: its parameters in `params.yaml`.
        packages: the libraries, besides those of all training, whose versions count.
        merges: whether its update can be merged into the weights.
        exported: whether its adapters are saved in PEFT's format.
    """

    label: str
    family: str
    module: str
    block: str
    packages: tuple[str, ...] = ()
    merges: bool = False
    exported: bool = False


METHODS: dict[str, MethodRow] = {
    "lora": MethodRow("LoRA (ours)", "lora", "lora", "lora", merges=True, exported=True),
    "peft_lora": MethodRow("LoRA (PEFT)", "lora", "peft_lora", "lora", ("peft",), exported=True),
    "loralib_lora": MethodRow(
        "LoRA (loralib)", "lora", "loralib_lora", "lora", ("loralib",), exported=True
    ),
    "adapter_h": MethodRow("AdapterH", "adapter", "adapter_h", "adapter_h", ("adapters",)),
    "full_ft": MethodRow("Full fine-tuning", "full", "full_ft", "full_ft"),
}


class Method(Protocol):
    """The shape of a method's module."""

    def adapt(self, model: PreTrainedModel, settings: Settings, seed: int) -> PreTrainedModel: ...
    def adapter_state(self, model: PreTrainedModel) -> dict[str, nn.Parameter]: ...
    def adapter_config(self, model: PreTrainedModel, settings: Settings) -> dict[str, object]: ...


def load_method(module: str) -> Method:
    """Import the module of a method, as its row of the table names it."""
    return cast(Method, import_module(f"{__name__}.{module}"))
