"""Our training step on one thread: how near to the machine's peak it is, and where its time goes.

Every round measures the peak and, for each method, the same batches of real data from a fresh
start; the shares compare what was measured within one round.

    python benchmarks/steps.py --methods lora full_ft --task movie_polarity
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from cells import options, read_cell, spread
from peft_study.errors import run_command
from peft_study.profiling.meters import PhaseClock
from peft_study.run_config import RunConfig
from peft_study.training import loop
from peft_study.training.batches import load_splits

WARM_UP_STEPS = 3
# Rows, inner size and columns of the products whose best speed counts as the machine's peak.
PEAK_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (512, 384, 1536))
PRODUCT_SECONDS = 0.2
# The counter knows attention's fused kernels of GPUs, not the CPU's, which runs without dropout.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
    ),
}
# An operator belongs to the first group that names it, or else the nearest operator around it.
GROUPS = {
    "matrix multiplications": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "flash_att",
    ),
    "copies and padding": (
        "aten::copy_",
        "aten::fill_",
        "aten::index",
        "aten::cat",
        "aten::zeros",
        "SideBySide",
        "EndToEnd",
    ),
    "GELU": ("aten::gelu",),  # before what its name begins with, aten::ge
    "dropout": ("_Drop", "aten::random_", "aten::ge", "aten::addcmul"),
    "softmax": ("softmax",),
    "LayerNorm": ("layer_norm",),
    "optimiser and clipping": ("adamw", "AdamW", "_norm", "aten::_foreach"),
}


class Measurement(NamedTuple):
    """One method in one round; the seconds of a step are by phase."""

    tokens_per_second: float
    flops_per_second: float
    peak: float
    phases: dict[str, float]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--methods", nargs="+", default=["lora", "full_ft"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="measured steps a round")
    arguments = parser.parse_args()
    task, steps = arguments.task, arguments.steps
    configs = {f"{method}-{task}": read_cell(method, task).run for method in arguments.methods}
    loop.make_accelerator(next(iter(configs.values())).train)
    check_counter()
    flops = {name: count_flops(config, steps) for name, config in configs.items()}
    found: dict[str, list[Measurement]] = {name: [] for name in configs}
    for number in range(arguments.rounds):
        for name in configs if number % 2 == 0 else reversed(configs):
            # Before and after, since a shared machine's speed drifts.
            before = measure_peak()
            tokens, seconds, phases = measure_steps(configs[name], steps)
            peak = max(before, measure_peak())
            speeds = (tokens / seconds, flops[name] / seconds)
            per_step = {phase: spent / steps for phase, spent in phases.items()}
            found[name].append(Measurement(*speeds, peak, per_step))
    print_speeds(found)
    print_phases(found)
    print_products(configs, arguments.rounds)
    for name, config in configs.items():
        print_operators(name, config, steps)


def training(
    config: RunConfig,
    phase: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Iterator[loop.Step]:
    """Build the model of `config` and yield its steps, warmed up; every call yields the same ones.

    All that this benchmark knows of the training loop stands here.
    """
    train, _ = load_splits(Path("data/prepared", config.task))
    _, model = loop.build(config, seed=1)
    task, hyper = config.definition, config.train
    adamw = loop.make_optimizer(model, hyper)
    accelerator = loop.make_accelerator(hyper)
    steps = loop.training_steps(model, adamw, train, task, hyper, 1, accelerator, phase=phase)
    return islice(steps, WARM_UP_STEPS, None)


def measure_steps(config: RunConfig, number: int) -> tuple[int, float, dict[str, float]]:
    """Measure `number` steps after the warm-up: tokens (without padding), seconds, those by phase.

    The first of the steps includes the warm-up, since nothing runs before it is asked for.
    """
    phases = PhaseClock(torch.device("cpu"))
    steps = training(config, phases.phase)
    next(steps)
    phases.take()
    clock = time.perf_counter()
    tokens = sum(next(steps).tokens for _ in range(number))
    return tokens, time.perf_counter() - clock, phases.take()


def count_flops(config: RunConfig, number: int) -> int:
    """Return the operations of the matrix multiplications in the steps that are measured.

    Those actually done are counted, padding included: 2 m k n for (m, k) times (k, n).
    """
    steps = training(config)
    next(steps)
    with counter() as counted:
        for _ in range(number):
            next(steps)
    return counted.get_total_flops()


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)


def check_counter() -> None:
    """Check the counter on a linear layer by hand.

    Forward is one product, the gradient of the input another; only a trained weight needs a third.
    """
    rows, width, outputs = 3, 5, 7
    product = 2 * rows * width * outputs
    for trained, products in ((False, 2), (True, 3)):
        x = torch.randn(rows, width, requires_grad=True)
        weight = torch.randn(outputs, width, requires_grad=trained)
        with counter() as counted:
            linear(x, weight, torch.randn(outputs)).sum().backward()
        if counted.get_total_flops() != products * product:
            raise RuntimeError("the counter miscounts a linear layer")


def measure_peak() -> float:
    """Return the float32 operations a second of the fastest matrix multiplication."""
    return max(measure_product(*shape) for shape in PEAK_SHAPES)


def measure_product(m: int, k: int, n: int) -> float:
    """Return the float32 operations a second of products (m, k) times (k, n).

    They are repeated for a while, as steps are: a shared machine is faster for moments.
    """
    left, right = torch.randn(m, k), torch.randn(n, k).t()
    product, done = torch.empty(m, n), 0
    clock = time.perf_counter()
    while (seconds := time.perf_counter() - clock) < PRODUCT_SECONDS:
        torch.mm(left, right, out=product)
        done += 1
    return done * 2 * m * k * n / seconds


def print_speeds(found: dict[str, list[Measurement]]) -> None:
    print("| step of | tokens/s | GFLOP/s | peak GFLOP/s | share of the peak |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, measured in found.items():
        columns = (
            spread([m.tokens_per_second for m in measured], ".0f"),
            spread([m.flops_per_second / 1e9 for m in measured], ".1f"),
            spread([m.peak / 1e9 for m in measured], ".1f"),
            spread([m.flops_per_second / m.peak for m in measured], ".0%"),
        )
        print(f"| {name} | {' | '.join(columns)} |")


def print_phases(found: dict[str, list[Measurement]]) -> None:
    names = list(next(iter(found.values()))[0].phases)
    print(f"\n| ms a step of | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    for name, measured in found.items():
        columns = [spread([1000 * m.phases[phase] for m in measured], ".0f") for phase in names]
        print(f"| {name} | {' | '.join(columns)} |")


def print_products(configs: dict[str, RunConfig], rounds: int) -> None:
    """Print how fast the products of the encoder's layers are with nothing else around them."""
    # Every configuration sees the same batches.
    tokens = next(training(next(iter(configs.values())))).tokens
    shapes = set()
    for config in configs.values():
        _, model = loop.build(config, seed=1)
        shapes |= {
            (tokens, layer.in_features, layer.out_features)
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and ".layer." in name
        }
    print("\n| products alone | GFLOP/s | share of the peak |\n| --- | ---: | ---: |")
    for shape in sorted(shapes):
        pairs = [(measure_product(*shape), measure_peak()) for _ in range(rounds)]
        columns = (
            spread([speed / 1e9 for speed, _ in pairs], ".1f"),
            spread([speed / peak for speed, peak in pairs], ".0%"),
        )
        print(f"| {' x '.join(map(str, shape))} | {' | '.join(columns)} |")


def print_operators(name: str, config: RunConfig, number: int) -> None:
    """Print each group's share of the time that operators take; Python's own time is left out."""
    steps = training(config)
    next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(number):
            next(steps)
    microseconds: dict[str, float] = defaultdict(float)
    for event in profiled.events() or []:
        microseconds[group_of(event)] += event.self_cpu_time_total
    total = sum(microseconds.values())
    print(f"\n| {name}: operators | ms a step | share |\n| --- | ---: | ---: |")
    for group, spent in sorted(microseconds.items(), key=lambda item: -item[1]):
        print(f"| {group} | {spent / number / 1000:.1f} | {spent / total:.1%} |")


def group_of(event: FunctionEvent | None) -> str:
    """Return the group of a profiled operator: its own, or that of the nearest one around it."""
    while event is not None:
        for group, names in GROUPS.items():
            if any(name in event.name for name in names):
                return group
        event = event.cpu_parent
    return "other"


if __name__ == "__main__":
    run_command(main)
