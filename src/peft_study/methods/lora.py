"""Our LoRA: low-rank updates to attention projections.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import projections
from peft_study.methods.saved import adapter_config, initialise, lora_state
from peft_study.run_config import LoraSettings

__all__ = ["LoRALinear", "adapt", "adapter_config", "adapter_state", "merge", "merged", "unmerge"]


class LoRALinear(nn.Linear):
    """A linear layer with a trainable low-rank update: h = W0 x + b + (alpha / r) B A x.

    It takes over the weight (out, in) and bias (out) of the layer it replaces, frozen, and adds
    `lora_A` (r, in) and `lora_B` (out, r), which starts at zero, so that the layer starts as the
    one it replaces. Merged, it computes what `nn.Linear` computes, with W0 + (alpha / r) B A.
    """

    def __init__(self, linear: nn.Linear, settings: LoraSettings) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_A = nn.Parameter(linear.weight.new_empty(settings.r, self.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(self.out_features, settings.r))
        self.dropout = nn.Dropout(settings.dropout)
        self.scaling = settings.alpha / settings.r
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in), of two dimensions or more, to (..., out)."""
        h = super().forward(x)
        if self.merged:
            return h
        # Products of matrices with r rows are several times as fast on CPUs, gradients included,
        # as those of matrices with r columns.
        low = self.lora_A @ self.dropout(x).flatten(0, -2).t()
        up = self.lora_B.t().contiguous() * self.scaling
        return torch.addmm(h.flatten(0, -2), low.t(), up).view_as(h)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the weight, in place; nothing where it is merged already."""
        if not self.merged:
            self.weight += self.scaling * (self.lora_B @ self.lora_A)
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the weight again: the inverse of `merge` up to rounding."""
        if self.merged:
            self.weight -= self.scaling * (self.lora_B @ self.lora_A)
            self.merged = False


def adapt(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PreTrainedModel:
    """Freeze a classifier and add low-rank updates to its attention projections, in place.

    Then only the A matrices, drawn from `seed`, and the B matrices require gradients.

    Raises StudyError: the architecture is unknown.
    """
    model.requires_grad_(False)
    for path, linear in projections(model, list(settings.targets)).items():
        model.set_submodule(path, LoRALinear(linear, settings))
    initialise(adapter_state(model), seed, settings.init_std)
    return model


def adapter_state(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the live A and B matrices by the names that PEFT saves them under."""
    return lora_state(model, LoRALinear)


def merge(model: PreTrainedModel) -> None:
    """Merge every update into its weight (section 4.1, "No Additional Inference Latency")."""
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.merge()


def unmerge(model: PreTrainedModel) -> None:
    """Undo `merge`."""
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.unmerge()


@contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Merge for the time of a `with` block, then restore every weight to the bit."""
    layers = [m for m in model.modules() if isinstance(m, LoRALinear) and not m.merged]
    weights = [layer.weight for layer in layers]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        layer.merge()
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight, layer.merged = weight, False
