"""The methods of the `adapters` library by its own words, and BitFit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_config, run_files, small_model
from peft_study.encoders.backbone import set_head
from peft_study.errors import StudyError
from peft_study.methods import adapters_library, bitfit, load_method
from peft_study.methods.adapters_words import WORDS, needs_own_forward
from peft_study.methods.saved import count_trainable, load_adapter, save_adapter
from peft_study.run_config import AdaptersSettings, BitFitSettings, Settings
from peft_study.training.batches import Split, load_splits
from peft_study.training.loop import build, train_run
from peft_study.training.packing import classify, pack
from peft_study.training.padding import Padded, pad

LIBRARY, BITFIT = load_method("adapters_library"), load_method("bitfit")
ROWS = list(range(8))
# Words with what fits a width of 32, and the parameters that they add to two layers.
CONFIGS: dict[str, int | None] = {
    "seq_bn[reduction_factor=8]": 2 * (2 * 32 * 4 + 4 + 32),
    "double_seq_bn[reduction_factor=8]": 4 * (2 * 32 * 4 + 4 + 32),
    "par_bn[reduction_factor=8]": 2 * (2 * 32 * 4 + 4 + 32),
    "scaled_par_bn": None,
    "seq_bn_inv": None,
    "double_seq_bn_inv": None,
    "compacter[reduction_factor=8,phm_dim=4]": None,
    "compacter++[reduction_factor=8,phm_dim=4]": None,
    "lora[r=4]": 4 * 2 * 32 * 4,
    "dora[r=4]": None,
    "ia3": None,
    "loreft[tied_weights=True]": None,
    "noreft[tied_weights=True]": None,
    "direft[tied_weights=True]": None,
    "prefix_tuning": None,
    "prefix_tuning_flat": None,
    "mam": None,
    "seq_bn[reduction_factor=8]|lora[r=4]": 2 * (2 * 32 * 4 + 4 + 32) + 4 * 2 * 32 * 4,
}


@pytest.fixture(scope="module")
def split(learnable: Path) -> Split:
    return load_splits(learnable)[0]


def moved(method: Any, settings: Settings) -> Any:
    """Return a classifier whose adapter is not as it started."""
    model = method.adapt(small_model("bert"), settings, 1).eval()
    with torch.no_grad():
        state = method.adapter_state(model).values()
        for number, value in enumerate(value for value in state if value.requires_grad):
            generator = torch.Generator().manual_seed(number)
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return model


@pytest.mark.parametrize("words", CONFIGS)
@torch.no_grad()
def test_words_add_what_they_say_and_are_computed_as_the_library_does(
    words: str, split: Split, tmp_path: Path
) -> None:
    settings = AdaptersSettings(words)
    model = moved(adapters_library, settings)
    set_head(model, "trained")
    if CONFIGS[words]:
        assert count_trainable(model, LIBRARY)["adapter"] == CONFIGS[words]
    batch = pack(split, ROWS, model)
    assert isinstance(batch, Padded) == needs_own_forward(words)
    logits, plain = classify(model, batch), classify(m := small_model("bert"), pack(split, ROWS, m))
    assert (logits - plain).abs().max() > 1e-4
    # Alone, no row is padded: what others are beside it changes nothing.
    alone = torch.cat([model(**pad(split, [row], model).inputs).logits for row in ROWS])
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-4)
    save_adapter(model, LIBRARY, settings, tmp_path)
    again = adapters_library.adapt(small_model("bert"), settings, 2).eval()
    load_adapter(again, LIBRARY, settings, tmp_path)
    assert torch.equal(classify(again, pack(split, ROWS, again)), logits)


def test_every_word_is_tried() -> None:
    assert {words.partition("[")[0] for words in CONFIGS if "|" not in words} == set(WORDS)


def test_left_out_layers_have_no_adapter() -> None:
    settings = AdaptersSettings("seq_bn[reduction_factor=8]", leave_out=(0,))
    model = adapters_library.adapt(small_model("bert"), settings, 1)
    state = adapters_library.adapter_state(model)
    assert state
    assert all(".layer.1." in name for name in state)
    with pytest.raises(StudyError, match="leave_out: got 2; the layers are 0 to 1"):
        adapters_library.adapt(small_model("bert"), replace(settings, leave_out=(2,)), 1)


def test_bitfit_trains_the_biases_and_nothing_else() -> None:
    model = bitfit.adapt(small_model("bert"), BitFitSettings(), 1)
    set_head(model, "trained")
    # Of 2 layers of width 32 and 64: attention 4 x 32, feed-forward 64 + 32, LayerNorms 2 x 32;
    # of the embeddings' LayerNorm and the pooler 32 each.
    expected = 2 * (4 * 32 + 64 + 32 + 2 * 32) + 2 * 32
    assert count_trainable(model, BITFIT) == {
        "adapter": expected,
        "head": 66,
        "total": expected + 66,
    }


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("adapters_library", AdaptersSettings("seq_bn[reduction_factor=8]")),
        ("adapters_library", AdaptersSettings("loreft[tied_weights=True]")),
        ("bitfit", BitFitSettings()),
    ],
)
def test_a_run_repeats_to_the_byte_and_its_weights_reproduce_its_logits(
    module: str, settings: Settings, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = replace(make_config("lora", model_path), module=module, settings=settings)
    for name in ("one", "other"):
        train_run(config, 3, learnable, None, tmp_path / name)
    assert run_files(tmp_path / "one") == run_files(tmp_path / "other")
    method, model = load_method(module), build(config, 3)[1].eval()
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    load_adapter(model, method, settings, tmp_path / "one/adapter")
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in before.items())
