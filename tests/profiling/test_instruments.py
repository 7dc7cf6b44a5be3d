"""The instruments recover what is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_config
from peft_study.profiling import meters
from peft_study.profiling import steps as training
from peft_study.profiling.intervals import ratio
from peft_study.profiling.memory import in_fresh_process, measure_memory
from peft_study.profiling.meters import (
    AssumedPower,
    MemorySampler,
    NotMeasurable,
    PhaseClock,
    SavedTensors,
    ZeusMeter,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
)
from peft_study.profiling.steps import (
    Training,
    alternating,
    measure_window,
    profile_energy,
    profile_training,
)
from peft_study.training import loop

CPU = torch.device("cpu")
MEGABYTE = 2**20


class Clock:
    """A clock that moves only when something sleeps, or by a little at every look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.look = 0.0

    def perf_counter(self) -> float:
        self.now += self.look
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that all instruments look at."""
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    monkeypatch.setattr(training, "time", clock)
    return clock


def test_a_phase_lasts_as_long_as_it_sleeps(clock: Clock) -> None:
    phases = PhaseClock(CPU)
    for _ in range(2):
        with phases.phase("sleeping"):
            clock.sleep(0.5)
    with phases.phase("idle"):
        pass
    assert phases.take() == {"sleeping": 1.0, "idle": 0.0}
    assert phases.take() == {}


def test_sleeps_are_found_in_their_phases_and_in_the_step(
    clock: Clock, model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name, seconds in (
        (loop, "classify", 3.0),
        (torch.Tensor, "backward", 5.0),
        (torch.optim.AdamW, "step", 2.0),
    ):
        original = getattr(place, name)

        def slow(*arguments: Any, _f: Any = original, _s: float = seconds, **options: Any) -> Any:
            clock.sleep(_s)
            return _f(*arguments, **options)

        monkeypatch.setattr(place, name, slow)
    config = make_config("lora", model_path, epochs=1000)
    found = profile_training({"lora": config}, learnable, 5, "lora")["lora"]
    assert found["seconds"] == {"forward": 3, "backward": 5, "optimiser": 2, "step": 10}
    # Two pieces a step: two forwards and backwards, one step of the optimiser.
    config["train"]["gradient_accumulation_steps"] = 2
    found = profile_training({"lora": config}, learnable, 2, "lora")["lora"]
    assert found["seconds"] == {"forward": 6, "backward": 10, "optimiser": 2, "step": 18}


def test_a_slower_method_is_slower_by_the_ratio_however_the_machine_drifts(
    clock: Clock, model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = iter(range(1, 1000))  # every step takes longer than the one before, by as much again
    original = loop.classify

    def slower(model: Any, batch: Any) -> Any:
        methods = {type(module).__name__ for module in model.modules()}
        clock.sleep(next(drift) * (3.0 if "LoRALinear" in methods else 2.0))
        return original(model, batch)

    monkeypatch.setattr(loop, "classify", slower)
    configs = {name: make_config(name, model_path, epochs=1000) for name in ("lora", "full_ft")}
    found = profile_training(configs, learnable, 40, "full_ft")
    ratios = found["lora"]["ratio"]
    assert ratios["median"] == pytest.approx(1.5, rel=0.03)
    assert ratios["low"] < 1.5 < ratios["high"]
    assert found["full_ft"]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}


def test_speeds_are_those_of_an_epoch(
    clock: Clock, model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second per token, though the last batch of an epoch is smaller."""
    original = loop.classify

    def by_the_token(model: Any, batch: Any) -> Any:
        clock.sleep(batch.tokens)
        return original(model, batch)

    monkeypatch.setattr(loop, "classify", by_the_token)
    config = make_config("lora", model_path, epochs=1000)
    found = profile_training({"lora": config}, learnable, 7, "lora")["lora"]
    tokens = Training(config, learnable).tokens
    assert found["seconds_per_epoch"] == pytest.approx({"mean": tokens, "std": 0})
    assert found["tokens_per_second"] == pytest.approx(1)
    assert found["examples_per_second"] == pytest.approx(60 / tokens)


def test_every_method_begins_and_ends_a_round_as_often() -> None:
    rounds = [alternating(["a", "b", "c"], number) for number in range(-1, 2)]
    assert rounds == [["c", "a", "b"], ["a", "b", "c"], ["b", "c", "a"]]


def test_saved_activations_are_counted_once_and_parameters_not_at_all() -> None:
    weight = torch.nn.Parameter(torch.randn(1000, 1000))
    x = torch.randn(500, 1000)
    with SavedTensors(iter([weight])) as saved:
        hidden = (x @ weight).exp()  # saves x, and its own result
        (hidden * hidden).sum()  # saves the same result again
    assert saved.bytes == 4 * (500 * 1000 + 500 * 1000)


def hold(megabytes: int) -> tuple[int, int, float]:
    """Return the resident memory before and at its peak, and its mean while memory is held."""
    np.ones(2 * megabytes * MEGABYTE, dtype=np.uint8)  # freed again, and forgotten
    reset_peak()
    before = resident_bytes()
    held = np.ones(megabytes * MEGABYTE, dtype=np.uint8)
    with MemorySampler(resident_bytes) as sampler:
        import time

        time.sleep(0.2)
    assert held[-1] == 1
    return before, peak_resident_bytes(), sampler.mean


@pytest.mark.skipif(not meters.STATUS.exists(), reason="only Linux forgets a peak")
def test_an_allocation_is_found_in_peak_and_mean() -> None:
    before, peak, mean = in_fresh_process(hold, 300)
    assert peak - before == pytest.approx(300 * MEGABYTE, rel=0.05)
    assert mean - before == pytest.approx(300 * MEGABYTE, rel=0.05)


def test_pieces_of_a_batch_need_fewer_activations(model_path: Path, learnable: Path) -> None:
    whole = make_config("full_ft", model_path, epochs=1000)
    pieces = make_config("full_ft", model_path, epochs=1000, gradient_accumulation_steps=4)
    found = [measure_memory(config, learnable) for config in (whole, pieces)]
    parts = [memory["parts"] for memory in found]
    assert parts[1]["activations"] < 0.6 * parts[0]["activations"]
    # With pieces, gradients are there beside the activations of the next.
    kept = [
        sum(part.values()) - memory["explained"] for part, memory in zip(parts, found, strict=True)
    ]
    assert kept[0] == min(parts[0]["gradients"], parts[0]["activations"])
    assert kept[1] == 0


class Lamp:
    """A meter of a lamp of 60 watts that someone else reads."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def begin(self) -> None:
        self.joules = 60 * self.clock.now

    def end(self) -> float:
        return 60 * self.clock.now - self.joules


def test_a_known_power_is_found(clock: Clock, model_path: Path, learnable: Path) -> None:
    clock.look = 0.01
    config = make_config("lora", model_path, epochs=1000)
    for meter in (Lamp(clock), AssumedPower(60)):
        joules, seconds, steps = measure_window(Training(config, learnable), meter)
        assert joules == pytest.approx(60 * seconds, rel=0.02)
        assert seconds >= training.WINDOW_SECONDS
        found = profile_energy({"lora": config}, learnable, meter)["lora"]
        assert found["watts"] == pytest.approx(60, rel=0.02)
        assert found["joules_per_step"] == pytest.approx(joules / steps, rel=0.05)
        assert found["joules_per_epoch"] == pytest.approx(8 * found["joules_per_step"])


def test_rapl_is_read_of_packages_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl = pytest.importorskip("zeus.device.cpu.rapl")
    import zeus.device.cpu

    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "psys"}
    for zone, name in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name)
        (tmp_path / zone / "energy_uj").write_text("1000000")
        (tmp_path / zone / "max_energy_range_uj").write_text("9000000000")
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path))
    monkeypatch.setattr(rapl, "rapl_is_available", lambda: True)
    monkeypatch.setattr(zeus.device.cpu, "rapl_is_available", lambda: True)
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    # Its counter of wraps is a process of its own, which a test needs not.
    monkeypatch.setattr(
        rapl.RAPLFile, "read", lambda self: float(Path(self.energy_uj_path).read_text()) / 1000
    )
    meter = ZeusMeter(CPU)
    assert meter.sources == ["RAPL"]
    meter.begin()
    for zone in zones:
        (tmp_path / zone / "energy_uj").write_text("4500000")
    assert meter.end() == pytest.approx(3.5)
    meter.begin()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("0")
    assert np.isnan(meter.end())
    (tmp_path / "intel-rapl:0/name").write_text("psys")
    monkeypatch.setattr(zeus.device.cpu, "_cpus", None)
    with pytest.raises(NotMeasurable, match="RAPL cannot be read: no package"):
        ZeusMeter(CPU)


def test_ratios_are_paired_and_their_interval_holds_them() -> None:
    reference = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])  # drifts more than methods differ
    assert ratio(1.5 * reference, reference) == {"median": 1.5, "low": 1.5, "high": 1.5}
    noisy = reference * np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    # Six of one side of the median have a chance of 2 in 64.
    assert ratio(noisy, reference) == pytest.approx({"median": 1.25, "low": 1.0, "high": 1.5})
    assert ratio(noisy[:5], reference[:5]) == {"median": 1.2, "low": None, "high": None}


def test_of_equal_models_intervals_hold_one_as_often_as_they_say() -> None:
    """However few rounds: an interval that is too narrow would call noise a difference."""
    rng = np.random.default_rng(0)
    for rounds in (6, 12, 20):
        found = [ratio(*np.exp(rng.standard_t(2, (2, rounds)) / 10)) for _ in range(400)]
        held = [r["low"] is not None and r["low"] <= 1 <= (r["high"] or 0) for r in found]
        assert np.mean(held) > 0.93
