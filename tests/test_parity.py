"""Parity with PEFT and loralib: the counts of the papers' models, numbers on the real encoder."""

import pytest
import torch
from torch import nn

from peft_study import parity
from peft_study.errors import StudyError
from peft_study.methods import lora


@pytest.mark.parametrize("model", parity.MODELS)
def test_counts_agree(model: str) -> None:
    """Ours = PEFT's = loralib's = the closed form, for every rank and every subset of weights."""
    found = dict(parity.counts(parity.MODELS[model]))
    # r = 8 on query and value is among the ranks and among the subsets
    assert len(found) == len(parity.RANKS) + 15 - 1 + len(parity.BOTTLENECKS) + 1


def test_roberta_base_counts_are_the_published_ones() -> None:
    found = dict(parity.counts(parity.MODELS["roberta-base"]))
    assert found["lora r=8 query+value"] == {
        "adapter": 294_912,
        "head": 592_130,
        "total": 887_042,
    }
    assert found["full_ft"]["total"] == 124_647_170


def test_a_wrong_count_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    adapt = lora.adapt

    def forgets_the_last_layer(model, params, seed):  # type: ignore[no-untyped-def]
        adapted = adapt(model, params, seed)
        last = list(lora.adapter_state(adapted).values())[-1]
        last.requires_grad = False
        return adapted

    monkeypatch.setattr(lora, "adapt", forgets_the_last_layer)
    with pytest.raises(StudyError, match=r"parity broken: bert lora r=1 query\+value"):
        dict(parity.counts(parity.MODELS["bert-base"]))


@pytest.mark.parametrize("reference", ["peft_lora", "loralib_lora"])
def test_numbers_agree_on_the_real_encoder(reference: str) -> None:
    """Forward, gradients and 20 optimiser steps, from equal A, B and data."""
    torch.set_num_threads(1)
    found = parity.compare("minilm", reference, ["query", "value"])
    assert set(found) == {
        "forward",
        "gradients",
        "losses_of_20_steps",
        "forward_after_20_steps",
        "parameters_after_20_steps",
    }
    assert max(found.values()) <= 1e-5


def test_a_wrong_scaling_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    init = lora.LoRALinear.__init__

    def forgets_the_scaling(self: lora.LoRALinear, linear: nn.Linear, params) -> None:  # type: ignore[no-untyped-def]
        init(self, linear, params)
        self.scaling = 1.0

    monkeypatch.setattr(lora.LoRALinear, "__init__", forgets_the_scaling)
    monkeypatch.setattr(parity, "STEPS", 1)
    found = parity.compare("minilm", "peft_lora", ["query", "value"])
    assert found["forward"] > 1e-4
    assert found["gradients"] > 1e-4


def test_merging_and_files_on_the_real_encoder() -> None:
    found = parity.merge_differences("minilm") | parity.file_differences("minilm")
    assert len(found) == 4
    assert max(found.values()) <= 1e-5
