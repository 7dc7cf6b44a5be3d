"""Memory of training, in several fresh processes a method, and what must be stored of it."""

import gc
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from peft_study.encoders.layout import known_keys
from peft_study.encoders.pretrained import model_config
from peft_study.methods import load_method
from peft_study.methods.saved import save_adapter
from peft_study.profiling import meters
from peft_study.profiling.intervals import mean_interval, ratio_of_means
from peft_study.records import Record
from peft_study.records.costs import Amount, MemoryCost, MemoryParts, MemoryUse, Recipe
from peft_study.run_config import RunConfig
from peft_study.running import lean
from peft_study.training import loop
from peft_study.training.batches import load_splits

STEPS = 5
PROCESSES = 4  # a method, at most: how far they differ is what intervals are drawn from
T = TypeVar("T")


class Used(Record):
    """Bytes at the peak of training, and their mean while it lasts."""

    peak: float
    mean: float


class Observed(Record):
    """What one process found of a method's training, as `MemoryCost` has it of several."""

    as_measured: Used
    beyond_libraries: Used
    parts: MemoryParts
    explained: int
    stored: int
    peak_reserved: int | None


def profile_memory(
    configs: Sequence[RunConfig], data: Path, rounds: int, reference: RunConfig
) -> list[MemoryCost]:
    """Measure the memory of every method's training, each time in a process of its own.

    There are as many processes as rounds, up to `PROCESSES`. Ratios are of their means, to those of
    `reference`, one of `configs`.
    """
    processes = min(rounds, PROCESSES)
    (first,) = in_fresh_processes(measure_memory, [(reference, data)])
    # Side by side, but no more of them than the memory holds: none disturbs another's bytes.
    held = psutil.virtual_memory().available // (1 + int(1.2 * first.as_measured.peak))
    # What NVML says is of all processes together.
    at_once = 1 if first.peak_reserved is not None else max(1, min(held, os.cpu_count() or 1))
    rest = [config for config in configs for _ in range(processes - (config == reference))]
    found = in_fresh_processes(measure_memory, [(config, data) for config in rest], at_once)
    of: dict[Recipe, list[Observed]] = {Recipe.of(config): [] for config in configs}
    of[Recipe.of(reference)].append(first)
    for config, observed in zip(rest, found, strict=True):
        of[Recipe.of(config)].append(observed)
    return [summarise(recipe, seen, of[Recipe.of(reference)]) for recipe, seen in of.items()]


def summarise(recipe: Recipe, seen: list[Observed], reference: list[Observed]) -> MemoryCost:
    """Draw together what several processes saw of one method, beside what they saw of another."""

    def use(counted: str) -> MemoryUse:
        amounts = []
        for kind in ("peak", "mean"):
            read = attrgetter(f"{counted}.{kind}")
            values, others = (list(map(read, group)) for group in (seen, reference))
            amounts.append(Amount(*mean_interval(values), ratio_of_means(values, others)))
        return MemoryUse(*amounts)

    def mean(name: str) -> int:
        return round(statistics.fmean(map(attrgetter(name), seen)))

    return MemoryCost(
        recipe=recipe,
        n=len(seen),
        as_measured=use("as_measured"),
        beyond_libraries=use("beyond_libraries"),
        parts=MemoryParts(**{part: mean(f"parts.{part}") for part in vars(seen[0].parts)}),
        explained=mean("explained"),
        stored=mean("stored"),
        peak_reserved=None if seen[0].peak_reserved is None else mean("peak_reserved"),
    )


def in_fresh_processes(
    function: Callable[..., T], calls: Sequence[Sequence[object]], at_once: int = 1
) -> list[T]:
    """Return a result for each of `calls`, each made in a process that starts with no memory."""
    spawn = multiprocessing.get_context("spawn")
    once: dict[str, Any] = {"max_tasks_per_child": 1, "initializer": lean.begin}
    with ProcessPoolExecutor(at_once, mp_context=spawn, **once) as pool:
        waiting = [pool.submit(function, *arguments) for arguments in calls]
        return [call.result() for call in waiting]


def measure_memory(config: RunConfig, data: Path) -> Observed:
    """Train `STEPS` batches and measure memory, in bytes, as it is in a fresh process.

    Returns:
        `as_measured`: on CPUs of the resident set; on CUDA of what NVML says is used of the device,
        by all programs. `beyond_libraries`: on CPUs without the resident set after the imports; on
        CUDA what PyTorch has allocated for tensors, with `peak_reserved`, what it has taken of the
        device for them, beside it. `parts`: `libraries` (on CPUs), `weights`, `gradients`,
        `optimiser_state`, `activations`, kept for the backward pass, and `allocator`: what glibc
        has freed and holds for its next use, besides what these will take of it. `explained`: their
        sum, but of gradients and activations the larger, since one grows while the other shrinks,
        unless batches are computed in pieces, when the gradients of the last piece are there.
        `stored`: the files that a task's weights take.
    """
    # Imports what the method and the architecture need, on no device: part of the libraries.
    shape = model_config(config.encoder.name, config.encoder.revision)
    with torch.device("meta"):
        AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**known_keys(shape)))
    load_method(config.module)
    task, hyper = config.definition, config.train
    accelerator = loop.make_accelerator(hyper)
    gc.enable()
    gc.collect()
    libraries, freed_before = meters.resident_bytes(), meters.freed_bytes()
    train, _ = load_splits(data)
    device, cuda = accelerator.device, accelerator.device.type == "cuda"
    method, model = loop.build(config, seed=1)
    # Weights are mapped from their file, and rows of embeddings read when a token needs them.
    for parameter in model.parameters():
        parameter.detach().sum()
    model = accelerator.prepare(model)
    adamw = loop.make_optimizer(model, hyper)
    gradients = tensor_bytes(p for p in model.parameters() if p.requires_grad)
    pieces = hyper.gradient_accumulation_steps > 1
    activations, held = 0, 0

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        nonlocal activations, held
        with meters.saved_tensors(model.parameters()) as saved:  # of the forward pass alone
            yield
        activations = max(activations, sum(saved.values()))
        kept = {"forward": activations + pieces * gradients, "backward": gradients, "optimiser": 0}
        held = max(held, kept[name] + meters.freed_bytes() - freed_before)

    steps = loop.training_steps(model, adamw, train, task, hyper, 1, accelerator, phase=phase)
    reads: list[Callable[[], int]] = [meters.resident_bytes]
    if cuda:
        reads = [
            partial(torch.cuda.device_memory_used, device),  # by NVML
            partial(torch.cuda.memory_allocated, device),
        ]
        torch.cuda.reset_peak_memory_stats(device)
    meters.reset_peak()
    next(steps)  # takes memory step by step that all others use again: no part of the mean
    with meters.sampled(lambda: [read() for read in reads]) as samples:
        for _ in islice(steps, STEPS - 1):
            pass
    means = [statistics.fmean(column) for column in zip(*samples, strict=True)]
    if cuda:
        measured = Used(max(used for used, _ in samples), means[0])
        beyond = Used(torch.cuda.max_memory_allocated(device), means[1])
    else:
        measured = Used(meters.peak_resident_bytes(), means[0])
        beyond = Used(measured.peak - libraries, measured.mean - libraries)
    at_once = gradients + activations if pieces else max(gradients, activations)
    state = chain.from_iterable(s.values() for s in adamw.state.values())
    parts = MemoryParts(
        libraries=0 if cuda else libraries,
        weights=tensor_bytes(chain(model.parameters(), model.buffers())),
        gradients=gradients,
        optimiser_state=tensor_bytes(state),
        activations=activations,
        allocator=0 if cuda else max(0, held - at_once),
    )
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, method, config.settings, Path(folder))
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    return Observed(
        measured,
        beyond,
        parts,
        explained=sum(vars(parts).values()) - gradients - activations + at_once,
        stored=stored,
        peak_reserved=torch.cuda.max_memory_reserved(device) if cuda else None,
    )


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of distinct tensors."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
