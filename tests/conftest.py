"""Small models of every architecture, and the parameters of a small study."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from peft_study.architectures import model_folder
from peft_study.errors import StudyError
from peft_study.sources import opinions

ROOT = Path(__file__).parent.parent

_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "max_position_embeddings": 66,
    "num_labels": 2,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZE),
    "roberta": RobertaConfig(**_SIZE, type_vocab_size=1),
    "deberta-v2": DebertaV2Config(
        **_SIZE,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        conv_kernel_size=3,
        conv_act="gelu",
        type_vocab_size=0,
    ),
}


def small_model(model_type: str) -> PreTrainedModel:
    """Build a random two-layer classifier, always the same."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(CONFIGS[model_type])
    return model.eval()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small BERT and a real tokeniser, as `model.name` may name it."""
    folder = tmp_path_factory.mktemp("model")
    small_model("bert").save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(model_folder("minilm") / name, folder)
    return folder


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return the checked archive of human-rated sentences."""
    try:
        return opinions.fetch(ROOT / opinions.DOWNLOADS)
    except StudyError as error:
        pytest.skip(f"the archive is neither there nor to be fetched: {error}")


@pytest.fixture
def params() -> dict[str, Any]:
    """Return the parameters of the default study, parsed."""
    values: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    return copy.deepcopy(values)


@pytest.fixture
def set_key() -> Callable[[dict[str, Any], str, Any], None]:
    """Return a function that sets a dotted key of parsed parameters."""

    def set_key(values: dict[str, Any], key: str, value: Any) -> None:
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return set_key
