"""AdapterH: two adapters a layer, of exactly the bottleneck asked for."""

from pathlib import Path

import pytest
import torch

from conftest import CONFIGS, small_model
from peft_study.encoders.backbone import set_head
from peft_study.methods import load_method
from peft_study.methods.saved import count_trainable, load_adapter, save_adapter
from peft_study.run_config import AdapterHSettings

METHOD = load_method("adapter_h")
SETTINGS = AdapterHSettings(bottleneck=4, activation="gelu")


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("bottleneck", [1, 3, 5, 7, 16, 32])
def test_count_is_the_closed_form(model_type: str, bottleneck: int) -> None:
    model = METHOD.adapt(small_model(model_type), AdapterHSettings(bottleneck, "gelu"), 0)
    set_head(model, "frozen")
    expected = 2 * 2 * (2 * 32 * bottleneck + bottleneck + 32)
    assert count_trainable(model, METHOD) == {"adapter": expected, "head": 0, "total": expected}


def test_adapters_follow_attention_and_feed_forward() -> None:
    names = METHOD.adapter_state(METHOD.adapt(small_model("bert"), SETTINGS, 0))
    places = {name.split(".layer.")[1].split(".adapters.")[0] for name in names}
    assert places == {"0.attention.output", "0.output", "1.attention.output", "1.output"}


def test_adapters_take_part_in_the_forward_pass_and_survive_saving(tmp_path: Path) -> None:
    ids = torch.arange(5, 25).reshape(2, 10)
    model = METHOD.adapt(small_model("bert"), SETTINGS, 0).eval()
    with torch.no_grad():
        for value in METHOD.adapter_state(model).values():
            value.add_(torch.randn(value.shape))
        changed = model(input_ids=ids).logits
        assert (changed - small_model("bert")(input_ids=ids).logits).abs().max() > 1e-3
        save_adapter(model, METHOD, SETTINGS, tmp_path)
        other = METHOD.adapt(small_model("bert"), SETTINGS, 1).eval()
        load_adapter(other, METHOD, SETTINGS, tmp_path)
        assert torch.equal(other(input_ids=ids).logits, changed)
