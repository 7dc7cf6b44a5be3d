"""A whole profile of small models."""

from pathlib import Path
from typing import Any

import pytest

from conftest import make_config
from peft_study import profiling
from peft_study.profiling import measure_energy, meters, profile
from peft_study.profiling import steps as training
from peft_study.profiling.inference import BASE

METHODS = ["lora", "adapter_h", "full_ft"]


def profile_config(model: Path, **changes: Any) -> dict[str, Any]:
    cells = {method: make_config(method, model, epochs=1000) for method in METHODS}
    cells["lora r=1"] = cells["lora"] | {"adapter": cells["lora"]["adapter"] | {"r": 1}}
    settings = {"rounds": 3, "reference": "full_ft", "assumed_watts": None, "batch_size": 8}
    return {"task": "movie_polarity", "cells": cells} | settings | changes


@pytest.fixture(autouse=True)
def no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that no energy can be measured, as on most machines that run tests."""

    def refuse(_: Any) -> None:
        raise meters.NotMeasurable("RAPL is absent")

    monkeypatch.setattr(profiling, "ZeusMeter", refuse)
    monkeypatch.setattr(training, "WINDOW_SECONDS", 0.05)


def test_a_profile_has_every_part(model_path: Path, learnable: Path) -> None:
    found = profile(profile_config(model_path), learnable)
    assert set(found["training"]) == {*METHODS, "lora r=1"}
    assert set(found["memory"]) == set(METHODS)
    assert set(found["inference"]) == {BASE, *METHODS, "lora merged"}
    assert found["training"]["full_ft"]["ratio"]["median"] == 1.0
    assert found["inference"][BASE]["batch_1"]["ratio"]["median"] == 1.0
    for latency in found["inference"].values():
        for measured in latency.values():
            seconds = measured["seconds"]
            assert 0 < seconds["p5"] <= seconds["median"] <= seconds["p95"]
    parts = {name: memory["parts"] for name, memory in found["memory"].items()}
    weights = parts["full_ft"]["weights"]
    assert parts["full_ft"]["gradients"] == pytest.approx(weights, rel=0.001)  # without buffers
    assert parts["full_ft"]["optimiser_state"] == pytest.approx(2 * weights, rel=0.01)
    assert 0 < parts["lora"]["gradients"] < 0.01 * weights
    assert parts["lora"]["activations"] < parts["full_ft"]["activations"]
    for name, memory in found["memory"].items():
        assert memory["parts"]["libraries"] < memory["mean"] <= memory["peak"], name
        assert memory["explained"] == pytest.approx(memory["peak"], rel=0.15), name
    assert found["memory"]["full_ft"]["stored"] > weights
    assert found["memory"]["lora"]["stored"] < 0.02 * weights
    assert 0 <= found["machine"]["other_cpu_share"] <= 1
    assert found["energy"] == {"cells": None, "source": None, "reason": "RAPL is absent"}


def test_an_estimate_of_energy_is_called_one(model_path: Path, learnable: Path) -> None:
    cells = {"lora": make_config("lora", model_path, epochs=1000)}
    found = measure_energy(cells, learnable, 30.0)
    assert found["source"] == "estimate"
    assert found["reason"] == "RAPL is absent"
    assert found["cells"]["lora"]["watts"] == pytest.approx(30, rel=0.1)
