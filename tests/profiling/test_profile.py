"""A whole profile of small models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import LORA, make_config
from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.profiling import memory as memory_of
from peft_study.profiling import meters, profile
from peft_study.profiling import steps as training
from peft_study.profiling.inference import BASE
from peft_study.records.costs import Batch, EnergySource, Recipe
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig, ProfileConfig, ProfiledTask

METHODS = ("lora", "adapter_h", "full_ft")


@pytest.fixture(autouse=True)
def no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that no energy can be measured, as on most machines that run tests."""

    def refuse(_: Any) -> None:
        raise meters.NotMeasurable("RAPL is absent")

    monkeypatch.setattr(profile, "ZeusMeter", refuse)
    monkeypatch.setattr(training, "WINDOW_SECONDS", 0.05)


def prepared(name: str) -> PrepareConfig:
    """Return how a task was prepared, of which a profile reads its name."""
    task, encoder = TASKS["movie_polarity"], Encoder("model", None, None, ARCHITECTURES["bert"])
    return PrepareConfig(name, name, task, "opinions", {}, 0, None, None, encoder, {}, 64)


@pytest.mark.slow
def test_a_profile_has_every_part(
    model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_of, "PROCESSES", 1)
    lora, full_ft = Recipe("lora", 4, ("query", "value")), Recipe("full_ft")
    adapter = Recipe("adapter_h", bottleneck=4)
    recipes = {lora, adapter, full_ft}
    cells = {m: make_config(m, model_path, epochs=1000) for m in ("lora", "adapter_h", "full_ft")}
    cells["lora r=1"] = replace(cells["lora"], settings=replace(LORA, r=1))
    task = ProfiledTask(prepared(learnable.name), cells)
    config = ProfileConfig(
        (task,), ("lora", "adapter_h", "full_ft"), 3, "full_ft", None, packages={}
    )
    found = profile.profile(config, learnable.parent)
    (costs,) = found.tasks
    steps = {cost.recipe: cost for cost in costs.training}
    memory = {cost.recipe: cost for cost in costs.memory}
    inference = {cost.recipe: cost for cost in costs.inference}
    assert set(steps) == recipes | {replace(lora, rank=1)}
    assert set(memory) == recipes
    assert set(inference) == {BASE, lora, replace(lora, merged=True), adapter}
    assert steps[full_ft].ratio.value == 1.0
    assert inference[BASE].one_by_one.ratio.value == 1.0
    for latencies in (*costs.inference, costs.second_copy):
        for measured in (latencies.one_by_one, latencies.validation_set):
            seconds = measured.seconds
            assert 0 < seconds.p5 <= seconds.median <= seconds.p95
    parts = {recipe: cost.parts for recipe, cost in memory.items()}
    weights = parts[full_ft].weights
    assert parts[full_ft].gradients == pytest.approx(weights, rel=0.001)  # without buffers
    assert parts[full_ft].optimiser_state == pytest.approx(2 * weights, rel=0.01)
    assert 0 < parts[lora].gradients < 0.01 * weights
    assert parts[lora].activations < parts[full_ft].activations
    for recipe, cost in memory.items():
        peak, mean = cost.as_measured.peak, cost.as_measured.mean
        assert cost.parts.libraries < mean.bytes <= peak.bytes, recipe
        assert cost.explained == pytest.approx(peak.bytes, rel=0.15), recipe
        assert (cost.n, peak.low) == (1, None)
        beyond = cost.beyond_libraries.peak.bytes + cost.parts.libraries
        assert beyond == pytest.approx(peak.bytes, abs=1)
    assert memory[full_ft].stored > weights
    assert memory[lora].stored < 0.02 * weights
    assert 0 <= found.machine.other_cpu_share <= 1
    assert found.energy == EnergySource(None, "RAPL is absent")


def test_every_task_is_measured_in_the_batches_of_its_methods(
    model_path: Path, learnable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora, full_ft = (make_config(name, model_path, epochs=1000) for name in ("lora", "full_ft"))
    small = replace(lora.train, batch_size=4, gradient_accumulation_steps=2)
    names = {"one": lora, "other": replace(lora, train=small)}
    tasks = [
        ProfiledTask(prepared(name), {"lora": of, "full_ft": full_ft}) for name, of in names.items()
    ]
    for name in names:
        (tmp_path / name).symlink_to(learnable)
    seen: list[tuple[Any, ...]] = []

    def keep(*given: Any) -> list[Any]:
        seen.append(given)
        return []

    monkeypatch.setattr(profile, "profile_memory", keep)
    config = ProfileConfig(
        tuple(tasks), ("lora", "adapter_h", "full_ft"), 2, "full_ft", None, packages={}
    )
    one, other = profile.profile(config, tmp_path).tasks
    assert (one.task, other.task) == ("one", "other")
    assert one.batches == {"lora": Batch(8, 1), "full_ft": Batch(8, 1)}
    assert other.batches == {"lora": Batch(4, 2), "full_ft": Batch(8, 1)}
    # The cells themselves are trained so.
    assert seen[1] == ([names["other"], full_ft], tmp_path / "other", 2, full_ft)
    assert one.step_of("lora")
    assert other.inference_of("lora", merged=True)


def test_an_estimate_of_energy_is_called_one(model_path: Path, learnable: Path) -> None:
    cells = {"lora": make_config("lora", model_path, epochs=1000)}
    source, meter = profile.find_meter(torch.device("cpu"), 30.0)
    assert source == EnergySource("estimate", "RAPL is absent")
    assert meter
    (cost,) = training.profile_energy(cells, learnable, meter)
    assert cost.watts == pytest.approx(30, rel=0.1)
