"""PEFT's tuners by configuration: their traps, and that no type needs code of ours."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from conftest import ROOT, Interrupted, InterruptedAfter, make_config, run_files, small_model
from peft_study.encoders.backbone import set_head
from peft_study.errors import StudyError
from peft_study.methods import load_method, peft_lora, peft_tuner
from peft_study.methods.saved import count_trainable, load_adapter, save_adapter
from peft_study.run_config import LoraSettings, PeftSettings, RunConfig
from peft_study.training.batches import Split, load_splits
from peft_study.training.loop import build, train_run
from peft_study.training.packing import classify, pack
from peft_study.training.padding import pad
from peft_study.training.resume import Checkpoint

QUERY_VALUE = ["query", "value"]
# A configuration of each type that fits a width of 32; of LoRA its variants.
TYPES: dict[str, dict[str, Any]] = {
    "ADALORA": {"init_r": 4, "target_r": 2},
    "ADAMSS": {"r": 8, "num_subspaces": 2},
    "BEFT": {},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "DEFT": {},
    "DELORA": {"r": 4},
    "FOURIERFT": {"n_frequency": 50},
    "FROD": {},
    "GLORA": {"r": 2},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "HIRA": {"r": 4},
    "HRA": {"r": 4},
    "IA3": {"target_modules": ["key", "value", "intermediate.dense"]}
    | {"feedforward_modules": ["intermediate.dense"]},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "LOHA": {"r": 4},
    "LOKR": {"r": 4},
    "LORA": {"r": 4},
    "LORA dora": {"r": 4, "use_dora": True},
    "LORA rslora": {"r": 4, "use_rslora": True},
    "LORA pissa": {"r": 4, "init_lora_weights": "pissa"},
    "LORA olora": {"r": 4, "init_lora_weights": "olora"},
    "LORA bias": {"r": 4, "bias": "all"},
    "LORA all": {"r": 4, "target_modules": "all-linear"},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "OSF": {"effective_rank": 4},
    "PEANUT": {"r": 4},
    "PSOFT": {"r": 4},
    "PVERA": {"r": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "SUPERTUNING": {},
    "TINYLORA": {"r": 2, "u": 8},
    "UNILORA": {"r": 4},
    "VBLORA": {"r": 2, "vector_length": 8, "num_vectors": 16},
    "VERA": {"r": 4},
    "WAVEFT": {"n_frequency": 50},
}
TUNER = load_method("peft_tuner")
ROWS = list(range(8))


def settings(name: str, **more: Any) -> PeftSettings:
    config = {"peft_type": name.split()[0], "target_modules": QUERY_VALUE} | TYPES[name] | more
    return PeftSettings(config)


@pytest.fixture(scope="module")
def split(learnable: Path) -> Split:
    return load_splits(learnable)[0]


@torch.no_grad()
def moved(name: str, seed: int = 1) -> Any:
    """Return a classifier with an adapter that is not as it started."""
    model = peft_tuner.adapt(small_model("bert"), settings(name), seed).eval()
    for number, value in enumerate(peft_tuner.adapter_state(model).values()):
        if value.requires_grad:
            generator = torch.Generator().manual_seed(number)
            value.add_(0.5 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", TYPES)
def test_a_type_packs_and_is_loaded_by_us_and_by_peft(
    name: str, split: Split, tmp_path: Path
) -> None:
    model = moved(name)
    with torch.no_grad():
        logits = classify(model, pack(split, ROWS, model))
        plain = classify(encoder := small_model("bert"), pack(split, ROWS, encoder))
        assert (logits - plain).abs().max() > 5e-5
        padded = model(**pad(split, ROWS, model).inputs).logits
        torch.testing.assert_close(logits, padded, atol=1e-5, rtol=1e-5)
        save_adapter(model, TUNER, settings(name), tmp_path)
        # It is stored with the seed that its places of weights were drawn from.
        ours = peft_tuner.adapt(small_model("bert"), settings(name), 1).eval()
        load_adapter(ours, TUNER, settings(name), tmp_path)
        theirs = peft.PeftModel.from_pretrained(small_model("bert"), tmp_path).eval()
        for loaded in (ours, theirs.base_model.model):
            again = classify(loaded, pack(split, ROWS, loaded))
            torch.testing.assert_close(again, logits, atol=1e-6, rtol=1e-5)


def test_no_weight_but_the_adapters_and_the_heads_is_trained() -> None:
    for name in TYPES:
        model = peft_tuner.adapt(small_model("bert"), settings(name), 1)
        set_head(model, "trained")
        counts = count_trainable(model, TUNER)
        assert counts["head"] == 66, name
        assert 0 < counts["adapter"] < 30_000, name


def test_lora_by_configuration_is_pefts_lora_to_the_bit(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    built_in = make_config("peft_lora", model_path)
    lora = LoraSettings(4, 8.0, 0.1, ("query", "value"))
    assert built_in.settings == lora
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
    recipe = of_recipe(built_in, PeftSettings(config | {"target_modules": QUERY_VALUE}))
    files = []
    for number, run in enumerate((built_in, recipe)):
        train_run(run, 3, learnable, None, tmp_path / str(number))
        files.append(run_files(tmp_path / str(number)))
    names = ("history.csv", "predictions.parquet", "run.json", "adapter/adapter_model.safetensors")
    assert all(files[0][name] == files[1][name] for name in names)


def of_recipe(run: RunConfig, own: PeftSettings) -> RunConfig:
    return replace(run, method="mine", module="peft_tuner", settings=own)


def test_everything_that_is_drawn_follows_the_runs_seed() -> None:
    for name in ("VERA", "RANDLORA", "WAVEFT", "FOURIERFT", "SHIRA", "TINYLORA", "UNILORA", "LORA"):
        models = [peft_tuner.adapt(small_model("bert"), settings(name), s) for s in (1, 1, 2)]
        drawn = []
        for model in models:
            config = peft_tuner.adapter_config(model, settings(name))
            seeds = [config[key] for key in config if {"seed", "prng"} & set(key.split("_"))]
            assert all(seed == seeds[0] for seed in seeds)
            state = peft_tuner.adapter_state(model)
            drawn.append((seeds, {key: value.detach().clone() for key, value in state.items()}))
        assert drawn[0][0] == drawn[1][0]
        assert all(torch.equal(drawn[0][1][key], drawn[1][1][key]) for key in drawn[0][1])
        differ = [not torch.equal(drawn[0][1][k], v) for k, v in drawn[2][1].items()]
        assert any(differ) or drawn[0][0] != drawn[2][0], name


@pytest.mark.parametrize("name", ["VERA", "FOURIERFT", "LORA dora"])
def test_a_task_starts_from_the_adapter_of_an_intermediate_run_with_another_seed(
    name: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = of_recipe(make_config("peft_lora", model_path, head="frozen"), settings(name))
    train_run(config, 3, learnable, None, tmp_path)
    split, found = load_splits(learnable)[1], []
    for seed in (3, 4):
        model = build(config, seed, tmp_path / "adapter")[1].eval()
        set_head(model, "frozen")
        base = replace_head(model)
        found.append(
            (
                classify(base, pack(split, ROWS, base)),
                peft_tuner.adapter_config(model, settings(name)),
            )
        )
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@torch.no_grad()
def replace_head(model: Any) -> Any:
    """Give a classifier one head, whatever its seed has drawn."""
    for value in model.classifier.parameters():
        value.copy_(torch.linspace(-1, 1, value.numel()).view_as(value))
    return model


def test_adaloras_term_is_that_of_peft(split: Split) -> None:
    model = moved("ADALORA")
    around = peft_tuner.wrapped(model)
    batch = pad(split, ROWS, model).inputs | {"labels": split.labels[ROWS]}
    with torch.no_grad():
        theirs = around.base_model(**batch).loss - model(**batch).loss
        ours = peft_tuner.AdaLora(model).penalty()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_adalora_lets_ranks_fall_over_the_run_and_goes_on_after_an_interruption(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = of_recipe(make_config("peft_lora", model_path, report="last"), settings("ADALORA"))
    train_run(config, 3, learnable, None, tmp_path / "whole")
    halfway = InterruptedAfter(tmp_path / "c", 7)
    with pytest.raises(Interrupted):
        train_run(config, 3, learnable, None, tmp_path / "run", halfway)
    train_run(config, 3, learnable, None, tmp_path / "run", Checkpoint(tmp_path / "c", 60))
    assert run_files(tmp_path / "run") == run_files(tmp_path / "whole")
    _, model = build(config, 3)
    load_adapter(model, TUNER, config.settings, tmp_path / "whole/adapter")
    values = [v for k, v in peft_tuner.adapter_state(model).items() if "lora_E" in k]
    ranks = sum(int((value != 0).sum()) for value in values)
    assert ranks == 2 * len(values)  # of the 4 that each layer started with
    longer = of_recipe(config, settings("ADALORA", tinit=10, tfinal=10))
    with pytest.raises(StudyError, match="tinit 10 and tfinal 10 leave none of 16 steps"):
        train_run(longer, 3, learnable, None, tmp_path / "longer")


def test_saved_sets_are_sorted_whatever_the_order_of_hashes(tmp_path: Path) -> None:
    """PEFT keeps targets as sets, whose order differs between processes."""
    script = """
import json, sys
from conftest import small_model
from peft_study.methods import peft_tuner
from peft_study.run_config import PeftSettings
own = PeftSettings({"peft_type": "IA3", "target_modules": ["value", "key", "query",
    "output.dense"], "feedforward_modules": ["output.dense"]})
model = peft_tuner.adapt(small_model("bert"), own, 1)
print(json.dumps([peft_tuner.adapter_config(model, own), list(peft_tuner.adapter_state(model))]))
"""
    printed = set()
    for seed in "12":
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}/src:{ROOT}/tests"}
        command = [sys.executable, "-c", script]
        found = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        printed.add(found.stdout)
    assert len(printed) == 1
    config, _ = json.loads(printed.pop())
    assert config["target_modules"] == sorted(config["target_modules"])


def test_canonical_names_stand_for_modules() -> None:
    own = PeftSettings({"peft_type": "LORA", "target_modules": ["output"]})
    state = peft_tuner.adapter_state(peft_tuner.adapt(small_model("deberta-v2"), own, 1))
    assert all(".attention.output.dense.lora_" in name for name in state)
    own = replace(own, config=own.config | {"target_modules": ["query"]})
    state = peft_tuner.adapter_state(peft_tuner.adapt(small_model("deberta-v2"), own, 1))
    assert all(".attention.self.query_proj.lora_" in name for name in state)


def test_pefts_start_of_a_is_that_of_all_loras() -> None:
    models = [
        peft_tuner.adapt(small_model("bert"), settings("LORA dora"), 1),
        peft_lora.adapt(small_model("bert"), LoraSettings(4, 8.0, 0.0, ("query", "value")), 1),
    ]
    state, plain = peft_tuner.adapter_state(models[0]), peft_lora.adapter_state(models[1])
    assert all(torch.equal(value, state[name]) for name, value in plain.items())
