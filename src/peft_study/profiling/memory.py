"""Memory of training, each method in a fresh process, and what must be stored of it."""

import gc
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from peft_study.data.tasks import Task
from peft_study.encoders.pretrained import model_config
from peft_study.methods import load_method, save_adapter
from peft_study.profiling.meters import (
    MemorySampler,
    SavedTensors,
    freed_bytes,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
)
from peft_study.study import method_params_of
from peft_study.training import loop
from peft_study.training.batches import load_splits

STEPS = 4


def profile_memory(configs: dict[str, dict[str, Any]], data: Path) -> dict[str, dict[str, Any]]:
    """Measure the memory of `STEPS` training steps of every cell; see `measure_memory`."""
    return {name: in_fresh_process(measure_memory, c, data) for name, c in configs.items()}


def in_fresh_process(function: Any, *arguments: Any) -> Any:
    """Call `function` in a process of its own, which starts with none of this one's memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_memory(config: dict[str, Any], data: Path) -> dict[str, Any]:
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
    task, hyper = Task.from_config(config["task_definition"]), config["train"]
    accelerator = loop.make_accelerator(hyper)
    device = accelerator.device
    # Imports what the method and the architecture need, on no device: part of the libraries.
    shape = AutoConfig.for_model(**model_config(config["model"], config["model_revision"]))
    with torch.device("meta"):
        AutoModelForSequenceClassification.from_config(shape)
    load_method(config["method"])
    gc.collect()
    libraries, freed_before = resident_bytes(), freed_bytes()
    method, model = loop.build(config, seed=1)
    # Weights are mapped from their file, and rows of embeddings read when a token needs them.
    for parameter in model.parameters():
        parameter.detach().sum()
    model = accelerator.prepare(model)
    adamw = loop.make_optimizer(model, hyper)
    gradients = tensor_bytes(p for p in model.parameters() if p.requires_grad)
    pieces = hyper["gradient_accumulation_steps"] > 1
    activations, held = 0, 0

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        nonlocal activations, held
        with SavedTensors(model.parameters()) if name == "forward" else nullcontext() as saved:
            yield
        if saved:
            activations = max(activations, saved.bytes)
        kept = {"forward": activations + pieces * gradients, "backward": gradients, "optimiser": 0}
        held = max(held, kept[name] + freed_bytes() - freed_before)

    steps = loop.training_steps(model, adamw, train, task, hyper, 1, accelerator, phase=phase)
    cuda = device.type == "cuda"
    read = partial(torch.cuda.memory_allocated, device) if cuda else resident_bytes
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        reset_peak()
    with MemorySampler(read) as sampler:
        for _ in islice(steps, STEPS):
            pass
    measured: dict[str, Any] = {"mean": sampler.mean}
    if cuda:
        free, total = torch.cuda.mem_get_info(device)
        measured |= {
            "peak": torch.cuda.max_memory_allocated(device),
            "peak_reserved": torch.cuda.max_memory_reserved(device),
            "device_used": total - free,
        }
    else:
        measured["peak"] = peak_resident_bytes()
    at_once = gradients + activations if pieces else max(gradients, activations)
    state = chain.from_iterable(s.values() for s in adamw.state.values())
    parts = {
        "libraries": 0 if cuda else libraries,
        "weights": tensor_bytes(chain(model.parameters(), model.buffers())),
        "gradients": gradients,
        "optimiser_state": tensor_bytes(state),
        "activations": activations,
        "allocator": 0 if cuda else max(0, held - at_once),
    }
    explained = sum(parts.values()) - gradients - activations + at_once
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, method, method_params_of(config), Path(folder))
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    return measured | {"parts": parts, "explained": explained, "stored": stored}


def tensor_bytes(tensors: Any) -> int:
    """Return the bytes of distinct tensors."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
