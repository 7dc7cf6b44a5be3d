"""Encoders are loaded whole, and heads are drawn afresh."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, BertConfig, BertForSequenceClassification, PreTrainedModel
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

from conftest import CONFIGS, make_config, small_model
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import head_parameters, load_model, projections
from peft_study.errors import StudyError
from peft_study.parity import counts
from peft_study.training.batches import Split
from peft_study.training.loop import train_run
from peft_study.training.packing import classify, pack


def save(model: PreTrainedModel, folder: Path) -> str:
    """Save a classifier, its head included, where `model.name` may point."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    return str(folder)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_heads_depend_on_the_seed_and_not_on_the_folder(model_type: str, tmp_path: Path) -> None:
    name = save(small_model(model_type), tmp_path)
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
    model = load_model(save(small_model(model_type), tmp_path), num_outputs=1, seed=0).eval()
    assert model(input_ids=torch.arange(5, 15)[None]).logits.shape == (1, 1)


def test_a_missing_encoder_weight_is_an_error(tmp_path: Path) -> None:
    name = save(small_model("bert"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.pooler.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudyError, match=r"weights lack 'bert\.pooler\.dense\.weight'"):
        load_model(name, 2, seed=0)


class MadeUpConfig(BertConfig):
    model_type = "made_up"


class MadeUp(BertForSequenceClassification):
    """BERT whose encoder is an attribute of another name."""

    base_model_prefix = "trunk"

    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        self.trunk = self.bert
        del self.bert

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.classifier(self.trunk(input_ids)[1])


def test_an_architecture_is_a_row_of_the_table(
    learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is all that it takes to load, adapt, pack, train and count a model."""
    row = replace(ARCHITECTURES["bert"], base="trunk", pooler="trunk.pooler")
    monkeypatch.setitem(ARCHITECTURES, "made_up", row)
    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "made_up", MadeUpConfig)
    monkeypatch.setitem(CLASSIFIERS._extra_content, MadeUpConfig, MadeUp)
    config = MadeUpConfig(**CONFIGS["bert"].to_diff_dict() | {"model_type": "made_up"})
    model = load_model(save(MadeUp(config), tmp_path), 2, seed=0).eval()
    ids = torch.arange(5, 25).reshape(2, 10)
    batch = pack(Split(["a", "b"], {"input_ids": list(ids)}, torch.zeros(2)), [0, 1], model)
    torch.testing.assert_close(classify(model, batch), model(ids))
    assert len(projections(model, ["query", "value"])) == 4
    assert counts.encoder_parameters(config) == model.trunk.num_parameters()
    run = make_config("lora", tmp_path, epochs=1)
    assert train_run(run, 1, learnable, None, tmp_path / "run").steps == 8
