"""A whole profile of small models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import LORA, make_config
from peft_study.profiling import meters, profile
from peft_study.profiling import steps as training
from peft_study.profiling.inference import BASE
from peft_study.records.costs import Energy, Recipe
from peft_study.stage_configs import ProfileConfig


@pytest.fixture(autouse=True)
def no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that no energy can be measured, as on most machines that run tests."""

    def refuse(_: Any) -> None:
        raise meters.NotMeasurable("RAPL is absent")

    monkeypatch.setattr(profile, "ZeusMeter", refuse)
    monkeypatch.setattr(training, "WINDOW_SECONDS", 0.05)


@pytest.mark.slow
def test_a_profile_has_every_part(model_path: Path, learnable: Path) -> None:
    lora, full_ft = Recipe("lora", 4, ("query", "value")), Recipe("full_ft")
    recipes = {lora, Recipe("adapter_h", bottleneck=4), full_ft}
    cells = {m: make_config(m, model_path, epochs=1000) for m in ("lora", "adapter_h", "full_ft")}
    cells["lora r=1"] = replace(cells["lora"], settings=replace(LORA, r=1))
    config = ProfileConfig("movie_polarity", 8, 3, "full_ft", None, cells, packages={})
    found = profile.profile(config, learnable)
    steps = {cost.recipe: cost for cost in found.training}
    memory = {cost.recipe: cost for cost in found.memory}
    inference = {cost.recipe: cost for cost in found.inference}
    assert set(steps) == recipes | {replace(lora, rank=1)}
    assert set(memory) == recipes
    assert set(inference) == recipes | {BASE, replace(lora, merged=True)}
    assert steps[full_ft].ratio.median == 1.0
    assert inference[BASE].batch_1.ratio.median == 1.0
    for latencies in found.inference:
        for measured in (latencies.batch_1, latencies.batch_64, latencies.validation_set):
            seconds = measured.seconds
            assert 0 < seconds.p5 <= seconds.median <= seconds.p95
    parts = {recipe: cost.parts for recipe, cost in memory.items()}
    weights = parts[full_ft].weights
    assert parts[full_ft].gradients == pytest.approx(weights, rel=0.001)  # without buffers
    assert parts[full_ft].optimiser_state == pytest.approx(2 * weights, rel=0.01)
    assert 0 < parts[lora].gradients < 0.01 * weights
    assert parts[lora].activations < parts[full_ft].activations
    for recipe, cost in memory.items():
        assert cost.parts.libraries < cost.mean <= cost.peak, recipe
        assert cost.explained == pytest.approx(cost.peak, rel=0.15), recipe
    assert memory[full_ft].stored > weights
    assert memory[lora].stored < 0.02 * weights
    assert 0 <= found.machine.other_cpu_share <= 1
    assert found.energy == Energy(source=None, reason="RAPL is absent")


def test_an_estimate_of_energy_is_called_one(model_path: Path, learnable: Path) -> None:
    cells = {"lora": make_config("lora", model_path, epochs=1000)}
    found = profile.measure_energy(cells, learnable, 30.0)
    assert (found.source, found.reason) == ("estimate", "RAPL is absent")
    (cost,) = found.cells
    assert cost.watts == pytest.approx(30, rel=0.1)
