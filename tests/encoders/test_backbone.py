"""Encoders are loaded whole, and heads are drawn afresh."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import CONFIGS, small_model
from peft_study.encoders.backbone import head_parameters, load_model
from peft_study.errors import StudyError


def save(model_type: str, folder: Path) -> str:
    """Save a small classifier, its head included, where `model.name` may point."""
    small_model(model_type).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    return str(folder)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_heads_depend_on_the_seed_and_not_on_the_folder(model_type: str, tmp_path: Path) -> None:
    name = save(model_type, tmp_path)
    first, again, second = (load_model(name, 2, seed) for seed in (1, 1, 2))
    stored = small_model(model_type).state_dict()
    for key, value in head_parameters(first).items():
        assert torch.equal(value, head_parameters(again)[key])
        if value.ndim > 1:
            assert not torch.equal(value, head_parameters(second)[key])
            assert not torch.equal(value, stored[key])
    for key, value in first.state_dict().items():
        if key not in head_parameters(first):
            assert torch.equal(value, stored[key])


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_head_of_another_width_is_drawn_as_well(model_type: str, tmp_path: Path) -> None:
    model = load_model(save(model_type, tmp_path), num_outputs=1, seed=0).eval()
    assert model(input_ids=torch.arange(5, 15)[None]).logits.shape == (1, 1)


def test_a_missing_encoder_weight_is_an_error(tmp_path: Path) -> None:
    name = save("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.pooler.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudyError, match=r"weights lack 'bert\.pooler\.dense\.weight'"):
        load_model(name, 2, seed=0)
