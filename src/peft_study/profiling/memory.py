"""Memory of training, each method in a fresh process, and what must be stored of it."""

import gc
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from peft_study.encoders.layout import known_keys
from peft_study.encoders.pretrained import model_config
from peft_study.methods import load_method
from peft_study.methods.saved import save_adapter
from peft_study.profiling import meters
from peft_study.records.costs import MemoryCost, MemoryParts, Recipe
from peft_study.run_config import RunConfig
from peft_study.training import loop
from peft_study.training.batches import load_splits

STEPS = 4
T = TypeVar("T")


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Call `function` in a process of its own, which starts with none of this one's memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_memory(config: RunConfig, data: Path) -> MemoryCost:
    """Train `STEPS` batches and measure memory, in bytes.

    Returns:
        `peak` and `mean` while training: on CPUs of the resident set, Python and libraries
        included; on CUDA of what PyTorch has allocated, with `peak_reserved` beside it and
        `device_used`, by all programs, as the driver says. `parts`: `libraries` (on CPUs),
        `weights`, `gradients`, `optimiser_state`, `activations`, kept for the backward pass, and
        `allocator`: what glibc has freed and holds for its next use, besides what these will take
        of it. `explained`: their sum, but of gradients and activations the larger, since one grows
        while the other shrinks, unless batches are computed in pieces, when the gradients of the
        last piece are there. `stored`: the files that a task's weights take.
    """
    train, _ = load_splits(data)
    task, hyper = config.definition, config.train
    accelerator = loop.make_accelerator(hyper)
    device, cuda = accelerator.device, accelerator.device.type == "cuda"
    # Imports what the method and the architecture need, on no device: part of the libraries.
    shape = model_config(config.encoder.name, config.encoder.revision)
    with torch.device("meta"):
        AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**known_keys(shape)))
    load_method(config.module)
    gc.collect()
    libraries, freed_before = meters.resident_bytes(), meters.freed_bytes()
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
    read = partial(torch.cuda.memory_allocated, device) if cuda else meters.resident_bytes
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    meters.reset_peak()
    with meters.sampled(read) as samples:
        for _ in islice(steps, STEPS):
            pass
    peak, reserved, used = meters.peak_resident_bytes(), None, None
    if cuda:
        free, total = torch.cuda.mem_get_info(device)
        peak, used = torch.cuda.max_memory_allocated(device), total - free
        reserved = torch.cuda.max_memory_reserved(device)
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
    explained = sum(vars(parts).values()) - gradients - activations + at_once
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, method, config.settings, Path(folder))
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    recipe, mean = Recipe.of(config), statistics.fmean(samples)
    return MemoryCost(recipe, peak, mean, parts, explained, stored, reserved, used)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of distinct tensors."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
