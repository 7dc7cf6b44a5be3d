"""Parity with PEFT and loralib: the counts of the papers' models, numbers on the real encoder."""

from functools import cache
from typing import Any

import pytest
import torch

from peft_study import parity
from peft_study.errors import StudyError
from peft_study.methods import lora
from peft_study.records.scores import Counts

pytestmark = pytest.mark.slow


@cache
def counts(model: str) -> dict[str, Counts]:
    return dict(parity.counts(parity.MODELS[model]))


MODELS = [pytest.param(m, marks=[pytest.mark.slow] * ("large" in m)) for m in parity.MODELS]


@pytest.mark.parametrize("model", MODELS)
def test_counts_agree(model: str) -> None:
    """Ours = PEFT's = loralib's = the closed form, for every rank and every subset of weights."""
    found = counts(model)
    # r = 8 on query and value is among the ranks and among the subsets
    assert len(found) == len(parity.RANKS) + 15 - 1 + len(parity.BOTTLENECKS) + 1


def test_roberta_base_counts_are_the_published_ones() -> None:
    found = counts("roberta-base")
    assert found["lora r=8 query+value"] == Counts(294_912, 592_130, 887_042)
    assert found["full_ft"].total == 124_647_170


def test_a_wrong_count_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    adapt = lora.adapt

    def forgets_the_last_layer(*arguments: Any, **options: Any) -> Any:
        adapted = adapt(*arguments, **options)
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
    found = parity.compare("minilm", reference, parity.QUERY_VALUE)
    assert set(found) == {
        "forward",
        "gradients",
        "losses_of_20_steps",
        "forward_after_20_steps",
        "parameters_after_20_steps",
    }
    assert max(found.values()) <= 1e-5


def test_a_wrong_scaling_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = property(lambda _: 1.0, lambda *_: None)  # whatever it is set to
    monkeypatch.setattr(lora.LoRALinear, "scaling", forgotten, raising=False)
    monkeypatch.setattr(parity, "STEPS", 1)
    found = parity.compare("minilm", "peft_lora", parity.QUERY_VALUE)
    assert found["forward"] > 1e-4
    assert found["gradients"] > 1e-4


def test_merging_and_files_on_the_real_encoder() -> None:
    found = parity.merge_differences("minilm") | parity.file_differences("minilm")
    assert len(found) == 4
    assert max(found.values()) <= 1e-5
