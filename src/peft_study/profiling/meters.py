"""Instruments: seconds of phases, bytes of memory, joules."""

import ctypes
import math
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor

from peft_study.errors import first_line

SAMPLING_SECONDS = 0.01  # between two looks at the memory
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PhaseClock:
    """Seconds spent in phases, each a `with` block; on a GPU a phase ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of `name`."""
        synchronize(self.device)
        begin = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] += time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """Return the seconds by phase since the last call."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was told; CPUs have."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class MemorySampler:
    """The mean of what `read` returns, in bytes, during a `with` block."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._samples: list[int] = []

    def __enter__(self) -> "MemorySampler":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def mean(self) -> float:
        """The mean of the samples."""
        return sum(self._samples) / len(self._samples)

    def _sample(self) -> None:
        while True:
            self._samples.append(self._read())
            if self._stop.wait(SAMPLING_SECONDS):
                return


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    found: int = psutil.Process().memory_info().rss
    return found


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

    _fields_ = (
        ("eight_others", ctypes.c_size_t * 8),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def freed_bytes() -> int:
    """Return what this process's allocator holds for its next use; 0 unless it is glibc's."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _MallInfo
    return int(mallinfo().fordblks)


class SavedTensors:
    """The bytes that a `with` block's forward pass keeps for its backward pass.

    Each storage counts once, and none of `parameters`' does: what is left are the activations.
    """

    def __init__(self, parameters: Iterator[Tensor]) -> None:
        self._known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self._found: dict[int, int] = {}

    def __enter__(self) -> "SavedTensors":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)

    @property
    def bytes(self) -> int:
        """What was kept."""
        return sum(self._found.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()


class Meter(Protocol):
    """What can say how much energy was used."""

    def begin(self) -> None: ...
    def end(self) -> float: ...


class ZeusMeter:
    """Joules of a GPU by NVML and of the CPU's packages by RAPL, through zeus.

    Both are counters of the hardware, read at the ends of a window: nothing is sampled.

    Raises:
        NotMeasurable: neither is readable on this machine, or a GPU is used whose is not.
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
        """Begin a window."""
        self._monitor.begin_window("window")

    def end(self) -> float:
        """Return the joules since `begin`; NaN if a counter went backwards, as when it wraps."""
        found = self._monitor.end_window("window")
        parts = [*found.gpu_energy.values()]
        for more in (found.cpu_energy, found.dram_energy):
            parts += (more or {}).values()
        return float(sum(parts)) if min(parts) >= 0 else math.nan


class AssumedPower:
    """An estimate: seconds times a power that someone has stated, in watts."""

    sources = ("estimate",)

    def __init__(self, watts: float) -> None:
        self.watts = watts

    def begin(self) -> None:
        """Begin a window."""
        self._began = time.perf_counter()

    def end(self) -> float:
        """Return the joules since `begin`, as estimated."""
        return self.watts * (time.perf_counter() - self._began)


class NotMeasurable(Exception):
    """This machine cannot measure what is asked for; the message says why."""
