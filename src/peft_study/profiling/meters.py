"""Instruments: seconds of phases, bytes of memory, joules."""

import ctypes
import math
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import psutil
import torch
from torch import Tensor

from peft_study.errors import first_line

SAMPLING_SECONDS = 0.01  # between two looks at the memory
T = TypeVar("T")
_SIZE = ctypes.c_size_t
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PhaseClock:
    """Seconds spent in phases, each a `with` block; on a GPU a phase ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.clock = device, clock_of(device)
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of `name`."""
        synchronize(self.device)
        begin = self.clock()
        yield
        synchronize(self.device)
        self.seconds[name] += self.clock() - begin

    def take(self) -> dict[str, float]:
        """Return the seconds by phase since the last call."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock that steps and latencies are measured by, in seconds.

    On CPUs, where all is computed on one thread, that is the processor's: it leaves out the time
    that others had the core, as do the seconds of a run.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was told; CPUs have."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def sampled(read: Callable[[], T]) -> Iterator[list[T]]:
    """Yield a list that fills with what `read` returns, every so often, during the `with` block."""
    samples, done = [read()], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            samples.append(read())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    return psutil.Process().memory_info().rss


def reset_peak() -> None:
    """Forget this process's largest resident memory so far, where the system can: Linux."""
    if STATUS.exists():
        CLEAR.write_text("5")


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process, on Linux since `reset_peak`.

    What `getrusage` says there includes the peak of the process that started this one.
    """
    if not STATUS.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = (("eight_others", _SIZE * 8), ("fordblks", _SIZE), ("keepcost", _SIZE))


def freed_bytes() -> int:
    """Return what this process's allocator holds for its next use; 0 unless it is glibc's."""
    if mallinfo := getattr(ctypes.CDLL(None), "mallinfo2", None):
        mallinfo.restype = _MallInfo
    return int(mallinfo().fordblks) if mallinfo else 0


@contextmanager
def saved_tensors(parameters: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Yield the bytes that a `with` block's forward pass keeps for its backward pass, by storage.

    Each storage counts once, and none of `parameters`' does: what is left are the activations.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


class Meter(Protocol):
    """What can say how much energy, in joules, was used from `begin` to `end`."""

    def begin(self) -> None: ...
    def end(self) -> float: ...


class ZeusMeter:
    """Joules of a GPU by NVML and of the CPU's packages by RAPL, through zeus.

    Both are counters of the hardware, read at the ends of a window: nothing is sampled.

    Raises NotMeasurable: neither is readable on this machine, or a GPU is used whose is not.
    """

    def __init__(self, device: torch.device) -> None:
        from zeus.device import get_cpus
        from zeus.exception import ZeusBaseError
        from zeus.monitor import ZeusMonitor

        gpus = [device.index or 0] if device.type == "cuda" else []
        packages, why = [], "no package"
        try:
            # Other zones, such as psys, hold the packages again.
            zones = get_cpus().cpus
            packages = [i for i, z in enumerate(zones) if z.rapl_file.name.startswith("package")]
        except (ZeusBaseError, ValueError, OSError) as error:
            why = first_line(error)
        if not (gpus or packages):
            raise NotMeasurable(f"no NVIDIA GPU is used, and RAPL cannot be read: {why}")
        try:
            self._monitor = ZeusMonitor(gpu_indices=gpus, cpu_indices=packages)
        except (ZeusBaseError, ValueError) as error:
            raise NotMeasurable(f"NVML cannot be read: {first_line(error)}") from None
        self.sources = ["NVML"] * bool(gpus) + ["RAPL"] * bool(packages)

    def begin(self) -> None:
        self._monitor.begin_window("window")

    def end(self) -> float:
        """Return the joules since `begin`; NaN if a counter went backwards, as when it wraps."""
        found = self._monitor.end_window("window")
        sources = (found.gpu_energy, found.cpu_energy, found.dram_energy)
        parts = [joules for source in sources for joules in (source or {}).values()]
        return float(sum(parts)) if min(parts) >= 0 else math.nan


class AssumedPower:
    """An estimate: seconds times a power that someone has stated, in watts."""

    sources = ("estimate",)

    def __init__(self, watts: float) -> None:
        self.watts = watts

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> float:
        return self.watts * (time.perf_counter() - self._began)


class NotMeasurable(Exception):
    """This machine cannot measure what is asked for; the message says why."""
