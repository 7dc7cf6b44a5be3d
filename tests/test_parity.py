"""Parity with PEFT and loralib: counts of the papers' models, numbers, and mistakes they reveal."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from conftest import CONFIGS, small_model
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.pretrained import model_folder
from peft_study.errors import StudyError
from peft_study.methods import lora
from peft_study.parity import certificate, numbers, whole_run
from peft_study.parity import counts as parity
from peft_study.records.scores import Counts
from peft_study.training import loop

pytestmark = pytest.mark.slow


@cache
def counts(model: str) -> dict[str, Counts]:
    return dict(parity.counts(parity.MODELS[model]))


MODELS = [pytest.param(m, marks=[pytest.mark.slow] * ("large" in m)) for m in parity.MODELS]


@pytest.mark.parametrize("model", MODELS)
def test_counts_agree(model: str) -> None:
    """Ours = PEFT's = loralib's = the closed form, for every rank and every subset of weights."""
    found = counts(model)
    # r = 8 on query and value is among the ranks and among the subsets
    assert len(found) == len(parity.RANKS) + 15 - 1 + len(parity.BOTTLENECKS) + 1


def test_roberta_base_counts_are_the_published_ones() -> None:
    found = counts("roberta-base")
    assert found["lora r=8 query+value"] == Counts(294_912, 592_130, 887_042)
    assert found["full_ft"].total == 124_647_170


def test_a_wrong_count_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    adapt = lora.adapt

    def forgets_the_last_layer(*arguments: Any, **options: Any) -> Any:
        adapted = adapt(*arguments, **options)
        last = list(lora.adapter_state(adapted).values())[-1]
        last.requires_grad = False
        return adapted

    monkeypatch.setattr(lora, "adapt", forgets_the_last_layer)
    with pytest.raises(StudyError, match=r"parity broken: bert lora r=1 query\+value"):
        dict(parity.counts(parity.MODELS["bert-base"]))


@pytest.mark.parametrize("reference", ["peft_lora", "loralib_lora"])
def test_numbers_agree_on_the_real_encoder(reference: str) -> None:
    """Forward, gradients and 20 optimiser steps, from equal A, B and data."""
    torch.set_num_threads(1)
    found = numbers.compare("minilm", reference, numbers.QUERY_VALUE)
    assert set(found) == {
        "forward",
        "gradients",
        "losses_of_20_steps",
        "forward_after_20_steps",
        "parameters_after_20_steps",
    }
    assert max(found.values()) <= 1e-5


def test_merging_and_files_on_the_real_encoder() -> None:
    found = numbers.merge_differences("minilm") | numbers.file_differences("minilm")
    assert len(found) == 4
    assert max(found.values()) <= 1e-5


def test_a_whole_run_agrees_with_the_trainers_on_the_real_encoder() -> None:
    found = whole_run.whole_run_differences("minilm")
    assert set(found) == {"loss_of_every_step", "parameters_after_the_last_step"}
    assert max(found.values()) <= 1e-5


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_architecture_is_certified(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT finds the four modules of each by the names that a user of PEFT would write."""
    small_model(model_type).save_pretrained(tmp_path)
    shutil.copy(model_folder("minilm") / "tokenizer.json", tmp_path)
    monkeypatch.setattr(numbers, "STEPS", 2)
    checked, compared = certificate.certify(str(tmp_path))
    assert [words.split(":")[0] for words in checked] == [
        "Start",
        "Dropout",
        "Weight decay",
        "Names",
    ]
    assert {(row.rank, row.alpha) for row in compared} == {(3, 16.0)}
    assert [row.what for row in compared if row.dropout == 0] == [
        "a whole run through Hugging Face's Trainer"
    ]


@pytest.fixture(scope="module")
def decided(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a small BERT whose attention differs by token; that of a fresh one is uniform."""
    folder = tmp_path_factory.mktemp("decided")
    shutil.copytree(model_path, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    scaled = {name: 10 * w if w.ndim > 1 else w for name, w in weights.items()}
    save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def query_and_key_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap them wherever the table of architectures is read: in attention too."""
    row = ARCHITECTURES["bert"]
    names = row.projections
    swapped = names | {"query": names["key"], "key": names["query"]}
    monkeypatch.setitem(ARCHITECTURES, "bert", replace(row, projections=swapped))


def targets_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap them for LoRA alone: attention computes as it should."""
    find, other = lora.projections, {"query": "key", "key": "query"}
    monkeypatch.setattr(
        lora, "projections", lambda model, names: find(model, [other.get(n, n) for n in names])
    )


def changed_layer(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[lora.LoRALinear], None]
) -> None:
    build = lora.LoRALinear.__init__

    def built(layer: lora.LoRALinear, *arguments: Any) -> None:
        build(layer, *arguments)
        change(layer)

    monkeypatch.setattr(lora.LoRALinear, "__init__", built)


def scaling_by_alpha_over_8(monkeypatch: pytest.MonkeyPatch) -> None:
    changed_layer(monkeypatch, lambda layer: setattr(layer, "scaling", 16 / 8))


def a_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read A's entries as those of a matrix (in, r)."""

    def forward(layer: lora.LoRALinear, x: Tensor) -> Tensor:
        h = nn.functional.linear(x, layer.weight, layer.bias)
        a = layer.lora_A.reshape(layer.in_features, -1)
        return h + layer.scaling * (layer.dropout(x) @ a @ layer.lora_B.T)

    monkeypatch.setattr(lora.LoRALinear, "forward", forward)


def b_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    initialise = lora.initialise

    @torch.no_grad()
    def initialised(state: dict[str, nn.Parameter], seed: int, std: float | None) -> None:
        initialise(state, seed, std)
        for name, parameter in state.items():
            if ".lora_B." in name:
                parameter.fill_(0.01)

    monkeypatch.setattr(lora, "initialise", initialised)


def dropout_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    changed_layer(monkeypatch, lambda layer: setattr(layer, "dropout", nn.Identity()))


def dropout_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(layer: lora.LoRALinear) -> None:
        layer.dropout.forward = nn.functional.dropout  # type: ignore[method-assign]

    changed_layer(monkeypatch, always)
    monkeypatch.setattr(numbers, "use_fast_dropout", lambda model: None)


def biases_decayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [{"params": trainable, "weight_decay": weight_decay}]

    monkeypatch.setattr(loop, "parameter_groups", groups)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (query_and_key_swapped, "peft_lora query by PEFT's own names of modules: forward differs"),
        (targets_swapped, "peft_lora query by PEFT's own names of modules: forward differs"),
        (scaling_by_alpha_over_8, "peft_lora query key value output: forward differs"),
        (a_transposed, "peft_lora query key value output: forward differs"),
        (b_not_zero, r"lora_B of bert\.encoder\..* is not zero at the start"),
        (dropout_missing, "dropout drops 0.000 in training, not 0.1"),
        (dropout_in_evaluation, r"dropout of bert\.encoder\..* drops in evaluation"),
        (biases_decayed, r"lora: 'classifier\.bias' decays in ours, not in Trainer"),
    ],
)
def test_the_certificate_names_a_mistake(
    mistake: Callable[[pytest.MonkeyPatch], None],
    message: str,
    decided: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mistake(monkeypatch)
    with pytest.raises(StudyError, match=f"^parity broken: {message}.*$"):
        certificate.certify(decided)


def by_raw_name(folder: str) -> dict[str, float]:
    return numbers.raw_name_differences(folder, "query")


def trained_beside_peft(folder: str) -> dict[str, float]:
    return numbers.compare(folder, "peft_lora", numbers.WEIGHTS, raw_names=True)


PARTS = (by_raw_name, trained_beside_peft, whole_run.whole_run_differences)


@pytest.mark.parametrize(
    ("mistake", "seen_by"),
    [
        (query_and_key_swapped, (by_raw_name, whole_run.whole_run_differences)),
        (targets_swapped, (by_raw_name,)),
        (scaling_by_alpha_over_8, PARTS),
        (a_transposed, PARTS),
        (b_not_zero, (whole_run.whole_run_differences,)),
        (dropout_missing, (trained_beside_peft,)),
        (biases_decayed, (whole_run.whole_run_differences,)),
    ],
)
def test_mistakes_are_seen_by_their_effect(
    mistake: Callable[[pytest.MonkeyPatch], None],
    seen_by: tuple[Callable[[str], dict[str, float]], ...],
    decided: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each by what computes something that it changes, and by nothing else."""
    mistake(monkeypatch)
    for part in PARTS:
        largest = max(part(decided).values())
        assert (largest > certificate.TOLERANCE) == (part in seen_by), part.__name__
