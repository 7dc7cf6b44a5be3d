"""Batches as transformers takes them: rows padded to the longest, through the model's own forward.

For methods that reach beyond the modules which the packed step calls: the same results, slower.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from peft_study.training.batches import Split

_KEY = "padded"


class Padded(NamedTuple):
    """Examples side by side: `inputs`, each (examples, longest), and their number of tokens."""

    inputs: dict[str, Tensor]
    tokens: int


def pad(split: Split, examples: list[int], model: PreTrainedModel) -> Padded:
    """Lay `examples`, row numbers of `split`, side by side, padded to the longest."""
    rows = {name: [column[i] for i in examples] for name, column in split.columns.items()}
    ids = rows["input_ids"]
    fill = {"input_ids": float(getattr(model.config, "pad_token_id", None) or 0)}
    inputs = {
        name: pad_sequence(column, batch_first=True, padding_value=fill.get(name, 0.0))
        for name, column in rows.items()
    }
    ones = [torch.ones_like(row) for row in ids]
    inputs["attention_mask"] = pad_sequence(ones, batch_first=True)
    placed = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return Padded(placed, sum(map(len, ids)))


def use_own_forward(model: PreTrainedModel) -> None:
    """Let a model be trained, and evaluated, through its own forward."""
    model.__dict__[_KEY] = True


def uses_own_forward(model: PreTrainedModel) -> bool:
    """Say whether a model is trained through its own forward."""
    return bool(model.__dict__.get(_KEY))
