"""The instruments recover what is known."""

import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_config
from peft_study.methods import lora
from peft_study.profiling import inference, memory, meters, steps
from peft_study.profiling.intervals import mean_interval, ratio, ratio_of_means
from peft_study.profiling.memory import (
    Observed,
    Used,
    in_fresh_processes,
    measure_memory,
    summarise,
)
from peft_study.records.costs import MemoryParts, Ratio, Recipe, StepSeconds
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

    process_time = perf_counter

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that all instruments look at."""
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    monkeypatch.setattr(steps, "time", clock)
    return clock


@pytest.fixture
def delay(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets another take so many seconds more, by what it is called with."""

    def delay(place: Any, name: str, seconds: Callable[..., float]) -> None:
        original = getattr(place, name)

        def slow(*arguments: Any, **options: Any) -> Any:
            clock.sleep(seconds(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(place, name, slow)

    return delay


def test_a_phase_lasts_as_long_as_it_sleeps(clock: Clock) -> None:
    phases = meters.PhaseClock(CPU)
    for _ in range(2):
        with phases.phase("sleeping"):
            clock.sleep(0.5)
    with phases.phase("idle"):
        pass
    assert phases.take() == {"sleeping": 1.0, "idle": 0.0}
    assert phases.take() == {}


def test_sleeps_are_found_in_their_phases_and_in_the_step(
    delay: Callable[..., None], model_path: Path, learnable: Path
) -> None:
    delay(loop, "classify", lambda *_: 3.0)
    delay(torch.Tensor, "backward", lambda *_: 5.0)
    delay(torch.optim.AdamW, "step", lambda *_: 2.0)
    config = make_config("lora", model_path, epochs=1000)
    (cost,) = steps.profile_training({"lora": config}, learnable, 5, "lora")
    assert cost.seconds == StepSeconds(forward=3, backward=5, optimiser=2, step=10)
    # Two pieces a step: two forwards and backwards, one step of the optimiser.
    config = make_config("lora", model_path, epochs=1000, gradient_accumulation_steps=2)
    (cost,) = steps.profile_training({"lora": config}, learnable, 2, "lora")
    assert cost.seconds == StepSeconds(forward=6, backward=10, optimiser=2, step=18)


def test_a_slower_method_is_slower_by_the_ratio_however_the_machine_drifts(
    delay: Callable[..., None], model_path: Path, learnable: Path
) -> None:
    drift = iter(range(1, 1000))  # every step takes longer than the one before, by as much again

    def seconds(model: Any, _: Any) -> float:
        methods = {type(module).__name__ for module in model.modules()}
        return next(drift) * (3.0 if "LoRALinear" in methods else 2.0)

    delay(loop, "classify", seconds)
    configs = {name: make_config(name, model_path, epochs=1000) for name in ("lora", "full_ft")}
    lora, full_ft = steps.profile_training(configs, learnable, 40, "full_ft")
    median, low, high = astuple(lora.ratio)
    assert median == pytest.approx(1.5, rel=0.03)
    assert low < 1.5 < high
    assert full_ft.ratio == Ratio(1.0, 1.0, 1.0)


def test_speeds_are_those_of_an_epoch(
    delay: Callable[..., None], model_path: Path, learnable: Path
) -> None:
    """A second per token, though the last batch of an epoch is smaller."""
    delay(loop, "classify", lambda _, batch: batch.tokens)
    config = make_config("lora", model_path, epochs=1000)
    (cost,) = steps.profile_training({"lora": config}, learnable, 7, "lora")
    tokens = steps.Training(config, learnable).tokens
    assert astuple(cost.seconds_per_epoch) == pytest.approx((tokens, 0))
    assert cost.tokens_per_second == pytest.approx(1)
    assert cost.examples_per_second == pytest.approx(60 / tokens)


def test_no_method_follows_the_same_other_in_every_round() -> None:
    rounds = [steps.shuffled(["a", "b", "c"], number) for number in range(60)]
    assert all(sorted(row) == ["a", "b", "c"] for row in rounds)
    assert rounds == [steps.shuffled(["a", "b", "c"], number) for number in range(60)]
    orders = {tuple(row): rounds.count(row) for row in rounds}
    assert len(orders) == 6
    assert min(orders.values()) >= 4


def test_an_epochs_ratio_is_that_of_its_tokens_where_batches_differ(
    delay: Callable[..., None], model_path: Path, learnable: Path
) -> None:
    """A second per token, and for LoRA's batches, which are twice as large, twice that."""
    sizes = {"lora": 16, "full_ft": 8}

    def seconds(model: Any, batch: Any) -> float:
        methods = {type(module).__name__ for module in model.modules()}
        return batch.tokens * (2.0 if "LoRALinear" in methods else 1.0)

    delay(loop, "classify", seconds)
    configs = {
        name: make_config(name, model_path, epochs=1000, batch_size=rows)
        for name, rows in sizes.items()
    }
    lora, full_ft = steps.profile_training(configs, learnable, 7, "full_ft")
    assert lora.ratio == Ratio(2.0, 2.0, 2.0)
    assert lora.seconds.step > 2.5 * full_ft.seconds.step
    assert (lora.n, full_ft.n) == (7, 7)


def test_saved_activations_are_counted_once_and_parameters_not_at_all() -> None:
    weight = torch.nn.Parameter(torch.randn(1000, 1000))
    x = torch.randn(500, 1000)
    with meters.saved_tensors([weight]) as saved:
        hidden = (x @ weight).exp()  # saves x, and its own result
        (hidden * hidden).sum()  # saves the same result again
    assert sum(saved.values()) == 4 * (500 * 1000 + 500 * 1000)


def hold(megabytes: int) -> tuple[int, int, float]:
    """Return the resident memory before and at its peak, and its mean while memory is held."""
    np.ones(2 * megabytes * MEGABYTE, dtype=np.uint8)  # freed again, and forgotten
    meters.reset_peak()
    before = meters.resident_bytes()
    held = np.ones(megabytes * MEGABYTE, dtype=np.uint8)
    with meters.sampled(meters.resident_bytes) as samples:
        time.sleep(0.2)
    assert held[-1] == 1
    return before, meters.peak_resident_bytes(), float(np.mean(samples))


@pytest.mark.slow
@pytest.mark.skipif(not meters.STATUS.exists(), reason="only Linux forgets a peak")
def test_an_allocation_is_found_in_peak_and_mean() -> None:
    ((before, peak, mean),) = in_fresh_processes(hold, [(300,)])
    assert peak - before == pytest.approx(300 * MEGABYTE, rel=0.05)
    assert mean - before == pytest.approx(300 * MEGABYTE, rel=0.05)


def test_pieces_of_a_batch_need_fewer_activations(model_path: Path, learnable: Path) -> None:
    whole = make_config("full_ft", model_path, epochs=1000)
    pieces = make_config("full_ft", model_path, epochs=1000, gradient_accumulation_steps=4)
    costs = [measure_memory(config, learnable) for config in (whole, pieces)]
    parts = [cost.parts for cost in costs]
    assert parts[1].activations < 0.6 * parts[0].activations
    # With pieces, gradients are there beside the activations of the next.
    kept = [sum(astuple(cost.parts)) - cost.explained for cost in costs]
    assert kept == [min(parts[0].gradients, parts[0].activations), 0]
    for cost in costs:  # both ways of telling it differ by the libraries
        told = zip(astuple(cost.as_measured), astuple(cost.beyond_libraries), strict=True)
        assert [whole - beyond for whole, beyond in told] == [cost.parts.libraries] * 2


def observed(peak: float, libraries: int = 500) -> Observed:
    parts = MemoryParts(libraries, *[0] * 5)
    both = Used(peak, peak - 10), Used(peak - libraries, peak - 10 - libraries)
    return Observed(*both, parts, explained=1, stored=2, peak_reserved=None)


def test_memory_of_several_processes_has_an_interval_both_ways() -> None:
    reference = [observed(peak) for peak in (998, 1000, 1002, 1000)]
    found = summarise(Recipe("lora"), [observed(p) for p in (748, 752, 751, 749)], reference)
    peak, beyond = found.as_measured.peak, found.beyond_libraries.peak
    assert (found.n, peak.bytes, beyond.bytes, found.parts.libraries) == (4, 750, 250, 500)
    # Student's t(3) is 3.182, the standard deviation the root of 10 / 3.
    assert (peak.low, peak.high) == pytest.approx((750 - 2.905, 750 + 2.905), abs=1e-3)
    assert astuple(peak.ratio) == pytest.approx((0.75, 0.7472, 0.7528), abs=1e-4)
    # The same bytes are a larger share of less.
    assert astuple(beyond.ratio) == pytest.approx((0.5, 0.4945, 0.5055), abs=1e-4)
    assert found.as_measured.mean.bytes == 740
    same = summarise(Recipe("full_ft"), reference, reference)
    assert same.as_measured.peak.ratio == Ratio(1.0, 1.0, 1.0)
    alone = summarise(Recipe("lora"), [observed(750)], reference[1:2]).as_measured.peak
    assert (alone.low, alone.high, alone.ratio) == (None, None, Ratio(0.75, None, None))


def test_every_method_is_measured_in_as_many_processes(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more of them side by side than the memory holds, by what the first one took."""
    configs = [make_config(name, model_path) for name in ("lora", "full_ft", "adapter_h")]
    peaks, asked = {"lora": 700, "full_ft": 1000, "adapter_h": 800}, []

    def pretend(_: Any, calls: list[Any], at_once: int = 1) -> list[Observed]:
        asked.append(at_once)
        return [observed(peaks[config.method]) for config, _ in calls]

    monkeypatch.setattr(memory, "in_fresh_processes", pretend)
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 8)
    for available in (10**4, 3000, 10):
        room = SimpleNamespace(available=available)
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda room=room: room)
        costs = memory.profile_memory(configs, tmp_path, 12, configs[1])
    assert asked == [1, 8, 1, 2, 1, 1]
    assert [cost.recipe.method for cost in costs] == list(peaks)
    assert {cost.n for cost in costs} == {memory.PROCESSES}
    assert {cost.n for cost in memory.profile_memory(configs, tmp_path, 2, configs[1])} == {2}
    assert [cost.as_measured.peak.ratio.value for cost in costs] == [0.7, 1.0, 0.8]


def test_of_equal_groups_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws = [100 + rng.standard_normal((2, 4)) for _ in range(1000)]
    ratios = [ratio_of_means(*pair) for pair in draws]
    held = [r.low is not None and r.low <= 1 <= (r.high or 0) for r in ratios]
    assert 0.935 < np.mean(held) < 0.98
    means = [mean_interval(pair[0]) for pair in draws]
    held = [low is not None and low <= 100 <= (high or 0) for _, low, high in means]
    assert 0.935 < np.mean(held) < 0.965


class Pretended(str):
    """A device that computes on the CPU and says that it is a GPU."""

    type = "cuda"


def test_on_cuda_nvml_is_what_is_measured_and_pytorch_what_is_beyond_the_libraries(
    model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, make = make_config("lora", model_path, epochs=1000), loop.make_accelerator

    class Accelerator:
        device = Pretended("cpu")

        def __getattr__(self, name: str) -> Any:
            return getattr(make(config.train), name)

    monkeypatch.setattr(loop, "make_accelerator", lambda _: Accelerator())
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    used = {"device_memory_used": 900, "memory_allocated": 300, "max_memory_allocated": 400}
    for name, value in (used | {"max_memory_reserved": 500}).items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    found = measure_memory(config, learnable)
    assert (found.as_measured, found.beyond_libraries) == (Used(900, 900), Used(400, 300))
    assert (found.peak_reserved, found.parts.libraries) == (500, 0)


def test_latencies_are_of_merged_models_and_of_two_copies_of_the_same(
    delay: Callable[..., None], model_path: Path, learnable: Path
) -> None:
    """A second a layer, and another for every low-rank update that is not merged."""

    def seconds(model: Any, _: Any) -> float:
        updates = [m for m in model.modules() if isinstance(m, lora.LoRALinear) and not m.merged]
        return 2.0 + len(updates)

    delay(inference, "classify", seconds)
    configs = [make_config(name, model_path) for name in ("lora", "full_ft")]
    rows, second = inference.profile_inference(configs, learnable, 7)
    found = {(row.recipe.method, row.recipe.merged): row for row in rows}
    assert list(found) == [(None, False), ("lora", False), ("lora", True)]
    for row, expected in ((found["lora", False], 3.0), (found["lora", True], 1.0), (second, 1.0)):
        for latency in (row.one_by_one, row.validation_set):
            assert latency.ratio == Ratio(expected, expected, expected)
    assert second.one_by_one.seconds.median == pytest.approx(2.0)
    assert second.validation_set.seconds.median == pytest.approx(2.0)  # of one batch of 40
    assert (second.one_by_one.n, second.validation_set.n) == (7, 7)


def test_no_two_models_that_are_measured_share_memory(
    model_path: Path, learnable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose weights are mapped from one file find them in caches that others have filled."""
    methods = ("lora", "peft_lora", "loralib_lora", "adapter_h")
    seen: dict[int, list[int]] = {}

    def look(model: Any, batch: Any) -> None:
        assert not model.training
        tensors = (*model.parameters(), *model.buffers())
        seen[id(model)] = [tensor.data_ptr() for tensor in tensors]
        kept.append(model)

    kept: list[Any] = []
    monkeypatch.setattr(inference, "classify", look)
    configs = [make_config(name, model_path) for name in methods]
    inference.profile_inference(configs, learnable, 1)
    places = [place for mine in seen.values() for place in mine]
    # Our LoRA merged and not, two copies of the base model; new ones of all in the second round.
    assert len(seen) == 2 * (len(methods) + 3)
    assert len(set(places)) == len(places)


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
    for meter in (Lamp(clock), meters.AssumedPower(60)):
        joules, seconds, count = steps.measure_window(steps.Training(config, learnable), meter)
        assert joules == pytest.approx(60 * seconds, rel=0.02)
        assert seconds >= steps.WINDOW_SECONDS
        (cost,) = steps.profile_energy({"lora": config}, learnable, meter)
        assert cost.watts == pytest.approx(60, rel=0.02)
        assert cost.joules_per_step == pytest.approx(joules / count, rel=0.05)
        assert cost.joules_per_epoch == pytest.approx(8 * cost.joules_per_step)


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
    meter = meters.ZeusMeter(CPU)
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
    with pytest.raises(meters.NotMeasurable, match="RAPL cannot be read: no package"):
        meters.ZeusMeter(CPU)


def test_ratios_are_paired_and_their_interval_holds_them() -> None:
    reference = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])  # drifts more than methods differ
    assert ratio(1.5 * reference, reference) == Ratio(1.5, 1.5, 1.5)
    noisy = reference * np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    # Six of one side of the median have a chance of 2 in 64.
    assert astuple(ratio(noisy, reference)) == pytest.approx((1.25, 1.0, 1.5))
    assert ratio(noisy[:5], reference[:5]) == Ratio(1.2, None, None)


def test_of_equal_models_intervals_hold_one_as_often_as_they_say() -> None:
    """However few rounds: an interval that is too narrow would call noise a difference."""
    rng = np.random.default_rng(0)
    for rounds in (6, 12, 20):
        found = [ratio(*np.exp(rng.standard_t(2, (2, rounds)) / 10)) for _ in range(400)]
        held = [r.low is not None and r.low <= 1 <= (r.high or 0) for r in found]
        assert np.mean(held) > 0.93
