"""Our LoRA against its equation, and its files against PEFT's."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from conftest import CONFIGS, small_model
from peft_study.encoders.architectures import Weight
from peft_study.encoders.backbone import head_parameters, projections, set_head
from peft_study.errors import StudyError
from peft_study.methods import METHODS, load_method, lora
from peft_study.methods.saved import count_trainable, load_adapter, save_adapter
from peft_study.run_config import LoraSettings

MODULES = [row.module for row in METHODS.values() if row.family == "lora"]
PeftConfig = partial(peft.LoraConfig, task_type="SEQ_CLS", r=4, lora_alpha=6)
IDS = torch.arange(5, 25).reshape(2, 10)
SETTINGS = LoraSettings(r=4, alpha=6.0, dropout=0.0, targets=("query",))


def targeting(*targets: Weight) -> LoraSettings:
    return replace(SETTINGS, targets=targets)


QUERY_VALUE = targeting("query", "value")


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def fill(model: PreTrainedModel, method: str) -> None:
    """Give A and B values that depend on their place alone."""
    with torch.no_grad():
        for number, value in enumerate(load_method(method).adapter_state(model).values()):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))


@given(st.integers(1, 8), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 9))
def test_forward_is_the_papers_equation(r: int, size: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    plain = nn.Linear(*size)
    layer = lora.LoRALinear(plain, replace(SETTINGS, r=r))
    nn.init.normal_(layer.lora_A)
    x = torch.randn(3, size[0])
    assert torch.equal(layer(x), plain(x))  # B is zero: the layer starts as the one it replaces
    nn.init.normal_(layer.lora_B)
    update = (6.0 / r) * (layer.lora_B @ layer.lora_A)
    expected = x @ (plain.weight + update).T + plain.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)
    weight = layer.weight.clone()
    layer.merge()
    layer.merge()
    torch.testing.assert_close(layer.weight, weight + update)
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)
    layer.unmerge()
    layer.unmerge()
    torch.testing.assert_close(layer.weight, weight)


def test_dropout_acts_on_the_update_alone_and_in_training_alone() -> None:
    layer = lora.LoRALinear(nn.Linear(4, 4), replace(SETTINGS, dropout=0.5))
    nn.init.ones_(layer.lora_A)
    nn.init.ones_(layer.lora_B)
    x = torch.ones(1000, 4)
    base = nn.functional.linear(x, layer.weight, layer.bias)
    dropped = (layer(x) - base)[:, 0] / (layer.scaling * layer.lora_A.shape[0])
    # The sum of four inputs, each 0 or doubled with probability one half.
    assert set(dropped.round().tolist()) == {0.0, 2.0, 4.0, 6.0, 8.0}
    assert dropped.mean().item() == pytest.approx(4.0, abs=0.3)
    layer.eval()
    assert (layer(x) - base)[:, 0].std() == 0


@pytest.mark.parametrize("method", MODULES)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_only_a_b_and_the_head_train(model_type: str, method: str) -> None:
    module = load_method(method)
    model = module.adapt(small_model(model_type), targeting("key", "output"), seed=3)
    set_head(model, "trained")
    adapter = 2 * 2 * 2 * 32 * 4  # layers, targets, A and B, width, rank
    head = sum(p.numel() for p in head_parameters(model).values())
    expected = {"adapter": adapter, "head": head, "total": adapter + head}
    assert count_trainable(model, module) == expected
    set_head(model, "frozen")
    assert count_trainable(model, module) == {"adapter": adapter, "head": 0, "total": adapter}


def test_deberta_head_includes_its_fresh_pooler() -> None:
    """DeBERTa-v2's checkpoints lack the pooler: frozen, it would stay random."""
    assert any(name.startswith("pooler.") for name in head_parameters(small_model("deberta-v2")))
    names = head_parameters(small_model("bert"))
    assert {name.split(".")[0] for name in names} == {"classifier"}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_implementations_start_from_the_same_a(model_type: str) -> None:
    modules = [load_method(name) for name in MODULES]
    states = [m.adapter_state(m.adapt(small_model(model_type), QUERY_VALUE, 5)) for m in modules]
    assert list(states[0]) == list(states[1]) == list(states[2])
    for name, value in states[0].items():
        assert all(torch.equal(value, state[name]) for state in states)
        assert bool(value.any()) == (".lora_A." in name)


def test_a_is_drawn_as_asked_by_all_implementations_alike() -> None:
    """Without a deviation A is Kaiming-uniform with a = sqrt(5): within 1 / sqrt(in)."""
    drawn = {}
    for std in (None, 0.02, 1.0):
        settings = replace(
            SETTINGS, r=16, targets=("query", "key", "value", "output"), init_std=std
        )
        states = []
        for name in MODULES:
            module = load_method(name)
            states.append(module.adapter_state(module.adapt(small_model("bert"), settings, 5)))
        for name, value in states[0].items():
            assert all(torch.equal(value, state[name]) for state in states)
            assert bool(value.any()) == (".lora_A." in name)
        drawn[std] = torch.cat([v.flatten() for n, v in states[0].items() if ".lora_A." in n])
    uniform, small, standard = (drawn[std] for std in (None, 0.02, 1.0))
    assert uniform.abs().max() <= 32**-0.5
    assert uniform.std().item() == pytest.approx((32 * 3) ** -0.5, rel=0.05)
    assert standard.std().item() == pytest.approx(1.0, rel=0.05)
    assert standard.mean().item() == pytest.approx(0.0, abs=0.05)
    within = (standard.abs() < 1).float().mean().item()
    assert within == pytest.approx(0.6827, abs=0.03)  # of a normal; 0.577 of a uniform one
    torch.testing.assert_close(small, 0.02 * standard)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_whole_model_merges(model_type: str) -> None:
    model = lora.adapt(small_model(model_type), targeting("query", "output"), 0).eval()
    fill(model, "lora")
    unmerged = logits(model)
    for change in (lora.merge, lora.unmerge):
        change(model)
        torch.testing.assert_close(logits(model), unmerged)


@pytest.mark.parametrize("method", MODULES)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_what_we_save_peft_loads(model_type: str, method: str, tmp_path: Path) -> None:
    module = load_method(method)
    model = module.adapt(small_model(model_type), QUERY_VALUE, 0).eval()
    fill(model, method)
    with torch.no_grad():
        for value in head_parameters(model).values():
            value.add_(0.1)
    save_adapter(model, module, QUERY_VALUE, tmp_path)
    loaded = peft.PeftModel.from_pretrained(small_model(model_type), str(tmp_path)).eval()
    torch.testing.assert_close(logits(loaded), logits(model))
    assert (logits(small_model(model_type)) - logits(loaded)).abs().max() > 1e-3


@pytest.mark.parametrize("method", MODULES)
def test_what_peft_saves_we_load(method: str, tmp_path: Path) -> None:
    config = PeftConfig(target_modules=["query", "value"])
    theirs = peft.get_peft_model(small_model("bert"), config).eval()
    for name, value in theirs.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            nn.init.normal_(value)
    theirs.save_pretrained(tmp_path)
    module = load_method(method)
    ours = module.adapt(small_model("bert"), QUERY_VALUE, 9).eval()
    load_adapter(ours, module, QUERY_VALUE, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (replace(SETTINGS, r=2), "r is 4, this adapter's is 2"),
        (replace(SETTINGS, alpha=8.0), r"lora_alpha is 6\.0, this adapter's is 8\.0"),
        (targeting("value"), "trained with another rank, bottleneck or set of targets"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    changed: LoraSettings, named: str, tmp_path: Path
) -> None:
    module = load_method("lora")
    save_adapter(module.adapt(small_model("bert"), SETTINGS, 0), module, SETTINGS, tmp_path)
    model = module.adapt(small_model("bert"), changed, 0)
    with pytest.raises(StudyError, match=named):
        load_adapter(model, module, changed, tmp_path)


def test_a_variant_that_scales_otherwise_is_refused(tmp_path: Path) -> None:
    config = PeftConfig(target_modules=["query"], use_rslora=True)
    peft.get_peft_model(small_model("bert"), config).save_pretrained(tmp_path)
    module = load_method("lora")
    with pytest.raises(StudyError, match="use_rslora is True"):
        load_adapter(module.adapt(small_model("bert"), SETTINGS, 0), module, SETTINGS, tmp_path)


def test_projections_are_the_attentions_own() -> None:
    """`output` is the projection after attention, not the feed-forward layer of the same name."""
    for model_type in CONFIGS:
        found = projections(small_model(model_type), ["query", "key", "value", "output"])
        assert len(found) == 8
        assert {(m.in_features, m.out_features) for m in found.values()} == {(32, 32)}
