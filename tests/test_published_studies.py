"""The published studies: nothing of them is left to the default study, and their comments hold."""

import copy
import math
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ruamel.yaml import YAML

from conftest import ROOT
from peft_study import configure, presets
from peft_study.data.sources.hub import DATASETS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import set_head
from peft_study.errors import StudyError
from peft_study.methods import load_method
from peft_study.methods.saved import count_trainable
from peft_study.parity.counts import MODELS
from peft_study.resolver import Resolver
from peft_study.run_config import Encoder
from peft_study.variants import resolve_variants

NAMES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
PUBLISHED = sorted({*NAMES} - {"opinions", "minilm_glue", "minilm_ledger", "peft_methods"})
# Another value than the default study's for everything that decides what runs do and cost.
OTHERWISE: dict[str, Any] = {
    "model.name": "another",
    "model.revision": "0" * 40,
    "model.max_length": 99,
    "data.source": "files",
    "data.folder": "elsewhere",
    "data.split_seed": 99,
    "data.resample": "per_seed",
    "seeds": [99],
    "methods": ["loralib_lora"],
    "only": {"lora": {"seeds": [99]}},
    "mnli_init.mode": "full_ft",
    "mnli_init.task": "snli",
    "mnli_init.tasks": ["qnli"],
    "mnli_init.head": "kept",
    "mnli_init.train_rows": 99,
    "mnli_init.validation_rows": 99,
    "mnli_init.epochs": 99,
    "mnli_init.seed": 99,
    "sweep.alpha": 99,
    "sweep.ranks": [99],
    "sweep.weights": ["output"],
    "train.epochs": 99,
    "train.batch_size": 99,
    "train.gradient_accumulation_steps": 99,
    "train.schedule": "constant",
    "train.warmup_ratio": 0.99,
    "train.weight_decay": 0.99,
    "train.adam_beta2": 0.99,
    "train.adam_epsilon": 0.99,
    "train.max_grad_norm": 0.99,
    "train.evaluations_per_epoch": 99,
    "train.head": "frozen",
    "train.report": "last",
    "train.device": "cuda",
    "train.precision": "bfloat16",
    "lora.r": 99,
    "lora.alpha": 99,
    "lora.dropout": 0.99,
    "lora.targets": ["output"],
    "lora.init_std": 0.99,
    "lora.learning_rate": 0.99,
    "adapter_h.bottleneck": 99,
    "adapter_h.activation": "tanh",
    "adapter_h.learning_rate": 0.99,
    "full_ft.learning_rate": 0.99,
    "full_ft.save_weights": True,
}
# What is told of costs, how findings are drawn, and where runs are run; tasks are the study's own,
# and files of one's own are refused beside the hub's.
OF_THE_DEFAULT = (
    *("study", "profile.", "analysis.", "runner.", "tasks.", "sweep.task"),
    *("mnli_init.files", "ledger.", "tune."),
)


# Studies whose rate stays, the share of their steps in which it rises, and the steps of a run.
CONSTANT = [
    ("keyquery_mrpc", 0.0043, 10 * math.ceil(3_667 / 32)),
    ("keyquery_rte", 0.0064, 10 * math.ceil(2_490 / 32)),
    ("keyquery_deberta", 0.00039, 3 * math.ceil(67_344 / 16)),
]


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _source(name: str) -> str:
    return (ROOT / f"studies/{name}.yaml").read_text("utf-8")


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted keys; that of `only` is whole."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "only":
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_every_training_parameter_of_the_default_study_is_told_apart() -> None:
    """A new one needs another value here, and is then asked of every published study."""
    default = dict(_leaves(_parse(_source("opinions"))))
    mine = {key: value for key, value in default.items() if not key.startswith(OF_THE_DEFAULT)}
    assert set(OTHERWISE) == set(mine)
    assert [key for key in mine if OTHERWISE[key] == mine[key]] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_of_a_published_study_is_left_to_the_default_study(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_key: Callable[[dict[str, Any], str, Any], None],
) -> None:
    """Retuning the default study changes no reproduction."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    monkeypatch.chdir(tmp_path)
    default = _source("opinions")

    def resolved(*changed: str) -> dict[str, object]:
        """Return what the stages are asked to do over a default study that is changed there."""
        values = _parse(default)
        for key in changed:
            set_key(values, key, OTHERWISE[key])
        with Path("studies/opinions.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(values, file)
        study = presets.load(name)
        model = study.model.name, study.model.revision, None, ARCHITECTURES["roberta"]
        found = configure.resolve(study, Encoder(*model))
        return {key: asked for key, asked in found.items() if key != "report"}

    def differs(*changed: str) -> bool:
        try:
            return resolved(*changed) != expected
        except StudyError:  # what is left to the default does not fit the study
            return True

    expected = resolved()
    leaking = [key for key in OTHERWISE if differs(key)] if differs(*OTHERWISE) else []
    assert leaking == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_comment_says_how_many_rows_are_dropped(name: str) -> None:
    header = _source(name).partition("\nstudy: ")[0].replace("\n#  ", "")
    spelt = {"mrpc": "MRPC", "cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B", "rte": "RTE"}
    for task in presets.load(name).tasks:
        dropped = DATASETS[task].dropped
        said = "not counted" if dropped is None else f"{spelt[task]} {dropped or 'none'}"
        assert "Training rows that are held out too are dropped" in header
        assert said in header


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_its_source_leaves_open_is_in_its_ledger(name: str) -> None:
    study = presets.load(name)
    encoder = Encoder(study.model.name, study.model.revision, None, ARCHITECTURES["roberta"])
    found, _ = resolve_variants(Resolver.of(study, encoder))
    changed = {entry.settings for entry in found.ledger if entry.kind == "alone" and entry.place}
    assert len(changed) == len(study.ledger.settings) >= 3


@pytest.mark.parametrize(("name", "warmup", "steps"), CONSTANT)
def test_a_constant_rate_is_reached_in_five_steps(name: str, warmup: float, steps: int) -> None:
    study = presets.load(name)
    (task,) = study.tasks.values()
    hyper = study.hyperparameters("full_ft", task)
    size = presets.describe(study)
    assert (hyper.schedule, hyper.warmup_ratio) == ("constant", warmup)
    assert size["steps"] == size["runs"] * steps
    assert math.ceil(warmup * steps) == 5


SOURCES = [
    ("hu_table2_roberta_base", "full_ft.adam_epsilon", 1e-6),
    ("hu_table2_roberta_large", "full_ft.adam_beta2", 0.98),
    ("hu_table2_roberta_large", "mnli_init.head", "kept"),
    ("hu_table2_restricted_bottleneck_8", "adapter_h.activation", "swish"),
    ("hu_table2_restricted_bottleneck_64", "adapter_h.activation", "swish"),
    ("chu_table1", "lora.init_std", 0.02),
    ("chu_table3", "lora.init_std", 0.02),
    *((f"keyquery_{task}", "lora.init_std", 1.0) for task in ("mrpc", "rte", "sst2", "deberta")),
    ("keyquery_mrpc", "full_ft.learning_rate", 1e-4),
    ("tiny_table2", "lora.init_std", None),
    ("tiny_table2", "analysis.iso_margin", 0.005),
]


@pytest.mark.parametrize(("name", "key", "value"), SOURCES)
def test_a_study_has_what_its_source_did(name: str, key: str, value: object) -> None:
    assert reduce(getattr, key.split("."), presets.load(name)) == value


def test_liu_weights_sweeps_every_set_of_weights() -> None:
    found = {frozenset(names.split("+")) for names in presets.load("liu_weights").sweep.weights}
    assert len(found) == 2**4 - 1


# The adapters' parameters that the studies' comments compute: layers x adapted weights or adapters.
COUNTS = [
    ("hu_table2_roberta_base", 12, 768, "294,912"),
    ("hu_table2_roberta_large", 24, 1024, "786,432"),
    ("chu_table1", 12, 768, "294,912"),
    ("tiny_table2", 12, 768, "294,912"),
    ("keyquery_sst2", 12, 768, "294,912"),
    ("keyquery_deberta", 24, 1536, "1,179,648"),
    ("liu_comparison", 24, 1024, "589,824"),
]


@pytest.mark.parametrize(("name", "layers", "width", "count"), COUNTS)
def test_lora_has_the_parameters_that_the_comment_says(
    name: str, layers: int, width: int, count: str
) -> None:
    lora = presets.load(name).lora
    assert f"{layers * len(lora.targets) * 2 * width * lora.r:,}" == count
    assert count in presets.render(name)


@pytest.mark.parametrize(("bottleneck", "count"), [(8, "835,968"), (64, "6,343,680")])
def test_adapter_h_has_the_parameters_that_the_comment_says(bottleneck: int, count: str) -> None:
    name = f"hu_table2_restricted_bottleneck_{bottleneck}"
    size = presets.load(name).adapter_h.bottleneck
    assert f"{2 * 24 * (2 * 1024 * size + size + 1024):,}" == count
    assert count in presets.render(name)


@pytest.mark.parametrize(
    ("study", "model", "millions"),
    [
        (
            "hu_table2_roberta_base",
            "roberta-base",
            {"lora": 0.3, "bitfit": 0.1, "adapter_d": 0.9, "adapter_d_small": 0.3},
        ),
        ("hu_table2_roberta_large", "roberta-large", {"lora": 0.8}),
        (
            "hu_table2_restricted_bottleneck_8",
            "roberta-large",
            {"adapter_h": 0.8, "adapter_p": 0.8},
        ),
        (
            "hu_table2_restricted_bottleneck_64",
            "roberta-large",
            {"adapter_h": 6.0, "adapter_p": 3.0},
        ),
    ],
)
def test_methods_of_table_2_train_as_many_parameters_as_the_paper_says(
    study: str, model: str, millions: dict[str, float]
) -> None:
    """In millions, with a digit; of 64 units in units of 2^20, without biases (see the headers)."""
    loaded = presets.load(study)
    with torch.device("meta"):
        plain = transformers.AutoModelForSequenceClassification.from_config(MODELS[model])
    for name, said in millions.items():
        declared = loaded.method(name)
        method = load_method(declared.row.module)
        with torch.device("meta"):
            adapted = method.adapt(copy.deepcopy(plain), declared.settings, seed=0)
        set_head(adapted, "trained")
        found, state = count_trainable(adapted, method)["adapter"], method.adapter_state(adapted)
        if said in (3.0, 6.0):
            found = sum(value.numel() for value in state.values() if value.ndim > 1)
            found = int(found * 10**6 / 2**20)
        assert f"{found / 1e6:.1f}" == f"{said:.1f}", (name, found)
