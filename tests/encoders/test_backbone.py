"""Encoders are loaded whole, and heads are drawn afresh."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
)
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

from conftest import CONFIGS, LORA, make_config, small_model
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import head_parameters, load_model, projections
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.parity import counts, numbers
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


@pytest.mark.parametrize("named", [True, False])
def test_a_bert_without_a_pooler_is_given_one_as_part_of_the_head(
    named: bool, tmp_path: Path, learnable: Path
) -> None:
    """So training to fill in words leaves it, with the heads of that task, or the encoder alone."""
    masked = BertForMaskedLM(CONFIGS["bert"])
    name = save(masked if named else masked.bert, tmp_path)
    first, again, second = (load_model(name, 2, seed) for seed in (1, 1, 2))
    head = head_parameters(first)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(head)
    for key, value in head.items():
        assert torch.equal(value, head_parameters(again)[key])
        assert value.ndim == 1 or not torch.equal(value, head_parameters(second)[key])
    # Drawn as transformers draws it, and the classifier as of a BERT that has a pooler.
    assert head["bert.pooler.dense.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    whole = load_model(save(small_model("bert"), tmp_path / "whole"), 2, seed=1)
    assert torch.equal(head["classifier.weight"], head_parameters(whole)["classifier.weight"])
    run = replace(make_config("lora", tmp_path, epochs=1), settings=LORA)
    train_run(run, 1, learnable, None, tmp_path / "run")
    # Two layers, two weights, r (in + out); the classifier, and the pooler.
    counted = {"adapter": 2 * 2 * 4 * 64, "head": 2 * 32 + 2 + 32 * 32 + 32}
    counted["total"] = sum(counted.values())
    assert read_json(tmp_path / "run/run.json")["trainable"] == counted
    assert max(numbers.file_differences(name).values()) < 1e-5  # as PEFT trains and saves it


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
    # Of a kind of which no more is known, what transformers cannot build is told in a line.
    odd = json.loads((tmp_path / "config.json").read_text()) | {"hidden_act": "odd"}
    (tmp_path / "config.json").write_text(json.dumps(odd))
    with pytest.raises(StudyError, match=f"^model.name is '{tmp_path}': cannot be loaded: 'odd'$"):
        load_model(str(tmp_path), 2, seed=0)
