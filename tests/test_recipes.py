"""Methods by configuration: what recipes resolve to, and mistakes in them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import ROOT, make_config, refusal, run_files
from peft_study.configure import resolve
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.methods import adapters_words, peft_types
from peft_study.methods.saved import load_adapter
from peft_study.run_config import (
    AdaptersSettings,
    BitFitSettings,
    Encoder,
    LoraSettings,
    PeftSettings,
)
from peft_study.study import Study, check_study, read_yaml
from peft_study.training.batches import load_splits
from peft_study.training.loop import build, make_accelerator, predict, train_run

Params = dict[str, Any]
IA3: Params = {"peft_type": "IA3", "target_modules": ["key", "value"], "feedforward_modules": []}
LORA: Params = {"peft_type": "LORA", "target_modules": ["query"]}


def peft(learning_rate: float = 8e-3, **config: Any) -> Params:
    """Return a recipe of PEFT's by its configuration."""
    return {"like": "peft", "learning_rate": learning_rate, "config": config}


def adapters(config: Any, **more: Any) -> Params:
    return {"like": "adapters", "learning_rate": 1e-3, "config": config} | more


# The recipes of a study, and what the one line says. Those in the second list need the library.
MISTAKES: list[tuple[Params, tuple[str, ...]]] = [
    ({"mine": {}}, ("recipes.mine.like: is missing",)),
    ({"mine": {"like": "lroa"}}, ("recipes.mine.like: got 'lroa'", "did you mean 'lora'?")),
    ({"mine": {"like": "mine"}}, ("recipes.mine.like: mine like mine is a circle",)),
    (
        {"a": {"like": "b"}, "b": {"like": "c"}, "c": {"like": "a"}},
        ("recipes.a.like: a like b like c like a is a circle",),
    ),
    ({"lora": {"like": "peft_lora"}}, ("recipes.lora: 'lora' is a method's own name already",)),
    ({"sweep": {"like": "lora"}}, ("recipes.sweep: 'sweep' is the name of something else",)),
    ({"epochs": {"like": "lora"}}, ("recipes.epochs: 'epochs' is the name of something else",)),
    ({"My LoRA": {"like": "lora"}}, ("recipes.My LoRA: got 'My LoRA'; must be lower-case",)),
    ({"../x": {"like": "lora"}}, ("recipes.../x: got '../x'; must be lower-case",)),
    ({"a" * 41: {"like": "lora"}}, ("must be lower-case letters", "at most 40")),
    ({"mine": {"like": "lora", "rank": 4}}, ("recipes.mine.rank: unknown key", "known:")),
    ({"mine": {"like": "lora", "r": 0}}, ("recipes.mine.r: got 0", "equal to 1")),
    ({"mine": {"like": "lora", "r": 400}}, ("recipes.mine.r: got 400", "at most 384")),
    ({"mine": {"like": "lora", "bottleneck": 4}}, ("bottleneck: unknown key for what is like",)),
    ({"mine": {"like": "lora", "targets": ["key"] * 2}}, ("targets: 'key' is repeated",)),
    ({"mine": {"like": "lora", "config": {"use_dora": True}}}, ("config: unknown key", "'lora'")),
    ({"mine": {"like": "lora", "label": ""}}, ("recipes.mine.label: got ''; must be not empty",)),
    ({"mine": {"like": "lora", "label": "a" * 61}}, ("label", "at most 60 characters")),
    ({"mine": {"like": "adapter_h", "bottleneck": 999}}, ("bottleneck: got 999", "at most 384")),
    ({"mine": {"like": "bitfit"}}, ("recipes.mine.learning_rate: is missing; add it",)),
    ({"mine": {"like": "peft", "config": IA3}}, ("recipes.mine.learning_rate: is missing",)),
    ({"mine": {"like": "peft", "learning_rate": 1e-3}}, ("recipes.mine.config: is missing",)),
    ({"mine": peft(target_modules=["query"])}, ("config.peft_type: is missing; add it",)),
    ({"mine": peft(peft_type="IA33")}, ("peft_type: got 'IA33'; did you mean 'IA3'?",)),
    ({"mine": peft(peft_type=3)}, ("config.peft_type: got 3", "known: ADALORA")),
    ({"mine": peft(peft_type="PREFIX_TUNING")}, ("it adds to the sequence", "packed step")),
    ({"mine": peft(peft_type="PROMPT_TUNING")}, ("it adds to the sequence", "packed step")),
    ({"mine": peft(peft_type="P_TUNING")}, ("it adds to the sequence", "packed step")),
    ({"mine": peft(peft_type="POLY")}, ("it needs several tasks at once",)),
    ({"mine": peft(**LORA, init_lora_weights="eva")}, ("got 'eva', which needs data",)),
    ({"mine": peft(**LORA, init_lora_weights="loftq")}, ("needs a quantised model",)),
    ({"mine": peft(**LORA, init_lora_weights="pissa_niter_4")}, ("must be 'pissa'",)),
    ({"mine": peft(**LORA, modules_to_save=["classifier"])}, ("modules_to_save: is the task's",)),
    ({"mine": peft(**LORA, task_type="SEQ_CLS")}, ("task_type: is classification",)),
    ({"mine": peft(peft_type="VERA", projection_prng_key=3)}, ("follows the seed of each run",)),
    ({"mine": peft(peft_type="ADALORA", total_step=9)}, ("the number of steps of each run",)),
    (
        {"mine": {"like": "peft_lora", "config": {"peft_type": "IA3"}}},
        ("config.peft_type: got 'IA3'; must be 'LORA' here",),
    ),
    ({"mine": {"like": "peft_lora", "config": "dora"}}, ("config: got 'dora'; must be a mapping",)),
    ({"mine": adapters({"a": 1})}, ("must be adapters' own words",)),
    ({"mine": adapters("seq_bm")}, ("config: got 'seq_bm'; did you mean 'seq_bn'?",)),
    ({"mine": adapters("seq_bn|lroa")}, ("config: got 'lroa'; did you mean 'lora'?",)),
    ({"mine": adapters("vera")}, ("'vera', which cannot be declared", "PEFT's VERA")),
    ({"mine": adapters("seq_bn", leave_out=[0, 0])}, ("leave_out: 0 is repeated",)),
]
TRIED: list[tuple[Params, tuple[str, ...]]] = [
    ({"mine": peft(**LORA, use_dorra=True)}, ("use_dorra: unknown key", "'use_dora'")),
    ({"mine": peft(**IA3, r=3)}, ("config: r: unknown key of PEFT's IA3Config",)),
    ({"mine": peft(peft_type="LORA", target_modules=["quary"])}, ("not found in the base model",)),
    (
        {"mine": peft(peft_type="LORA", target_modules=["query", "quary"])},
        ("target_modules: no module of the encoder is called 'quary'",),
    ),
    ({"mine": peft(peft_type="LORA", target_modules=["classifier"])}, ("is of the head",)),
    ({"mine": peft(peft_type="LN_TUNING", target_modules=["query"])}, ("is no LayerNorm",)),
    (
        {"mine": peft(peft_type="C3A", target_modules=["query"])},
        ("block size should be a factor", "384"),
    ),
    (
        {"mine": peft(peft_type="VBLORA", target_modules=["query"])},
        ("must be divisible by `vector_length` 256",),
    ),
    ({"mine": peft(peft_type="LORA", r=-1, target_modules=["query"])}, ("PEFT refuses it", "-1")),
    ({"mine": adapters("seq_bn[")}, ("adapters refuses it: Invalid adapter config string",)),
    ({"mine": adapters("seq_bn[factor=8]")}, ("adapters refuses it", "'factor'")),
    ({"mine": adapters("seq_bn", leave_out=[6])}, ("leave_out: got 6; the layers are 0 to 5",)),
]


def one_line(params: Params, recipes: Params) -> str:
    params["recipes"] = recipes
    message = refusal(params)
    assert message.startswith("params.yaml: recipes.")
    return message


@pytest.mark.parametrize(("recipes", "says"), [*MISTAKES, *TRIED])
def test_a_mistake_is_one_line(params: Params, recipes: Params, says: tuple[str, ...]) -> None:
    message = one_line(params, recipes)
    assert all(part in message for part in says), message


@pytest.mark.parametrize("kind", sorted(peft_types.REFUSED))
def test_what_peft_has_and_a_study_cannot_serve_is_refused_with_the_reason(
    params: Params, kind: str
) -> None:
    message = one_line(params, {"mine": peft(peft_type=kind)})
    assert f"'{kind}', which cannot be declared: {peft_types.REFUSED[kind]}" in message


def test_every_type_of_peft_is_declarable_or_refused_with_a_reason() -> None:
    from peft import PeftType

    known = {*peft_types.PEFT_TYPES, *peft_types.REFUSED}
    assert {kind.value for kind in PeftType} == known


def test_every_word_of_adapters_is_declarable_or_refused_with_a_reason() -> None:
    from adapters.configuration.adapter_config import ADAPTER_CONFIG_MAP

    old = {"pfeiffer", "houlsby", "parallel", "scaled_parallel", "pfeiffer+inv", "houlsby+inv"}
    known = {*adapters_words.WORDS, *adapters_words.REFUSED}
    assert set(ADAPTER_CONFIG_MAP) - old == known


def declared(params: Params, **recipes: Params) -> Study:
    params["recipes"] = recipes
    return check_study(params | {"methods": ["lora", *recipes]})


def test_a_recipe_has_what_it_is_like_but_for_what_it_says(params: Params) -> None:
    params["lora"] |= {"r": 3, "epochs": 7}
    study = declared(
        params,
        small={"like": "lora", "r": 1},
        smaller={"like": "small", "alpha": 1, "epochs": 9, "label": "Small", "citation": "Us"},
        dora={"like": "peft_lora", "config": {"use_dora": True}},
        rsdora={"like": "dora", "config": {"use_rslora": True}},
        bitfit={"like": "bitfit", "learning_rate": 1e-4},
        drop={"like": "adapters", "learning_rate": 1e-4, "config": "seq_bn", "leave_out": [0, 1]},
    )
    assert study.method("lora").settings == LoraSettings(3, 16, 0.0, ("query", "value"))
    assert study.method("smaller").settings == LoraSettings(1, 1, 0.0, ("query", "value"))
    lora = {"peft_type": "LORA", "r": 3, "lora_alpha": 16, "lora_dropout": 0.0}
    lora["target_modules"] = ["query", "value"]
    assert study.method("dora").settings == PeftSettings(lora | {"use_dora": True})
    both = lora | {"use_dora": True, "use_rslora": True}
    assert study.method("rsdora").settings == PeftSettings(both)
    assert study.method("bitfit").settings == BitFitSettings()
    assert study.method("drop").settings == AdaptersSettings("seq_bn", (0, 1))
    labels = {name: study.method(name).row.label for name in ("small", "smaller", "lora")}
    assert labels == {"small": "small", "smaller": "Small", "lora": "LoRA (ours)"}
    assert study.method("smaller").citation == "Us"
    epochs = {
        name: study.hyperparameters(name, study.tasks["movie_polarity"]).epochs
        for name in ("lora", "small", "smaller", "dora", "bitfit")
    }
    assert epochs == {"lora": 7, "small": 7, "smaller": 9, "dora": 7, "bitfit": 2}


def test_a_task_overrides_what_a_recipe_says(params: Params) -> None:
    params["tasks"]["movie_polarity"] |= {"lora": {"epochs": 3}, "smaller": {"epochs": 4}}
    small = {"small": {"like": "lora"}, "smaller": {"like": "small"}}
    study = declared(params, **small)
    task = study.tasks["movie_polarity"]
    found = {name: study.hyperparameters(name, task).epochs for name in ("lora", *small)}
    assert found == {"lora": 3, "small": 3, "smaller": 4}
    params["tasks"]["movie_polarity"]["smaller"]["epoch"] = 4
    line = r"tasks\.movie_polarity\.smaller\.epoch: unknown key; did you mean 'epochs'"
    with pytest.raises(StudyError, match=line):
        declared(params, **small)
    params["tasks"]["movie_polarity"]["smallest"] = params["tasks"]["movie_polarity"].pop("smaller")
    with pytest.raises(StudyError, match=r"movie_polarity\.smallest: unknown key; did you mean"):
        declared(params, **small)


def test_another_method_changes_no_run_of_the_others(params: Params) -> None:
    """Nor does its name: what two methods share is trained once."""
    encoder = Encoder("minilm", None, None, ARCHITECTURES["bert"])
    before = resolve(check_study(params), encoder)
    params["methods"].append("small")
    study = check_study(params | {"recipes": {"small": {"like": "lora", "r": 1}}})
    after = resolve(study, encoder)
    kept = {name: config for name, config in after.items() if name.startswith("train/")}
    assert kept.pop("train/small")
    assert kept == {name: before[name] for name in kept}


def test_methods_are_listed_with_their_papers() -> None:
    command = [sys.executable, "-m", "peft_study.methods"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ("lora", "full_ft", "bitfit", *peft_types.PEFT_TYPES, *adapters_words.WORDS):
        assert f"\n  {name:<16}" in printed
    assert "Zhang et al. 2023" in printed


RECIPES = read_yaml(ROOT / "studies/peft_methods.yaml")["recipes"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_the_study_of_methods_train_and_repeat(
    name: str, params: Params, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """On a tiny model: whole runs, with equal bytes, whose weights give their logits again."""
    declared = check_study(params | {"recipes": RECIPES}).method(name)
    config = make_config("lora", model_path, report="last", evaluations_per_epoch=1)
    config = replace(config, module=declared.row.module, settings=declared.settings)
    for folder in ("one", "other"):
        train_run(config, 3, learnable, None, tmp_path / folder)
    assert run_files(tmp_path / "one") == run_files(tmp_path / "other")
    method, model = build(config, 3)
    load_adapter(model.eval(), method, declared.settings, tmp_path / "one/adapter")
    _, validation = load_splits(learnable)
    logits = predict(model, validation, config.definition, make_accelerator(config.train))
    stored = pd.read_parquet(tmp_path / "one/predictions.parquet").query("step == step.max()")
    torch.testing.assert_close(
        logits, torch.tensor(np.stack(list(stored.logits))), atol=1e-6, rtol=1e-5
    )
