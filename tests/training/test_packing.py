"""Packed batches compute what padded ones compute."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from conftest import CONFIGS, LORA, SETTINGS, small_model
from peft_study.encoders.backbone import set_head
from peft_study.methods import METHODS, load_method
from peft_study.training.batches import Split
from peft_study.training.packing import classify, pack

WITHOUT_DROPOUT = SETTINGS | {"lora": replace(LORA, dropout=0.0, targets=("query", "output"))}


def make_split(lengths: list[int]) -> Split:
    generator = torch.Generator().manual_seed(len(lengths))
    ids = [torch.randint(5, 30000, (n,), generator=generator) for n in lengths]
    return Split([str(n) for n in lengths], {"input_ids": ids}, torch.zeros(len(lengths)))


def padded_logits(model, split: Split) -> Tensor:  # type: ignore[no-untyped-def]
    """Compute logits by the model's own forward, padded to the longest."""
    ids = list(split.columns["input_ids"])
    padded = pad_sequence(ids, batch_first=True, padding_value=model.config.pad_token_id)
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return model(input_ids=padded, attention_mask=mask).logits


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=12))
@pytest.mark.parametrize("model_type", CONFIGS)
def test_logits_equal_padded_ones(model_type: str, lengths: list[int]) -> None:
    model, split = small_model(model_type), make_split(lengths)
    with torch.no_grad():
        batch = pack(split, list(range(len(lengths))), model)
        padded = padded_logits(model, split)
        torch.testing.assert_close(classify(model, batch), padded, atol=1e-5, rtol=0)
    assert batch.tokens == sum(lengths)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_gradients_equal_padded_ones(model_type: str, method: str) -> None:
    row = METHODS[method]
    module = load_method(row.module)
    model = module.adapt(small_model(model_type), WITHOUT_DROPOUT[str(row.block)], 0).eval()
    set_head(model, "trained")
    with torch.no_grad():
        for value in module.adapter_state(model).values():
            value.add_(0.1 * torch.randn(value.shape))
    split = make_split([30, 7, 22, 41, 3, 12])
    batch, gradients = pack(split, list(range(6)), model), []
    for logits in (classify(model, batch), padded_logits(model, split)):
        trained = [p for p in model.parameters() if p.requires_grad]
        weighted = (logits * torch.arange(12.0).reshape(6, 2)).sum()
        gradients.append(torch.autograd.grad(weighted, trained))
    for packed, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("places", [[0], [3, 4], [9, 11], list(range(12))])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_text_may_hold_the_paddings_token(model_type: str, places: list[int]) -> None:
    """RoBERTa numbers the others as if it were not there."""
    model, split = small_model(model_type), make_split([12, 20, 7])
    split.columns["input_ids"][0][places] = int(model.config.pad_token_id or 0)
    with torch.no_grad():
        packed = classify(model, pack(split, [0, 1, 2], model))
        torch.testing.assert_close(packed, padded_logits(model, split), atol=1e-5, rtol=0)


def test_examples_do_not_see_each_other() -> None:
    model = small_model("bert")
    split, other = make_split([10, 12, 14]), make_split([10, 12, 14])
    ids = list(other.columns["input_ids"])
    other.columns["input_ids"] = [ids[0], torch.full((12,), 7), ids[2]]
    with torch.no_grad():
        one = classify(model, pack(split, [0, 1, 2], model))
        two = classify(model, pack(other, [0, 1, 2], model))
    assert torch.equal(one[[0, 2]], two[[0, 2]])
    assert not torch.allclose(one[1], two[1])
