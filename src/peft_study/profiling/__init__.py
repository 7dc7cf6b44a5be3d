"""What a method costs: time, memory, latency and energy, measured by itself."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from peft_study.profiling.inference import profile_inference
from peft_study.profiling.memory import profile_memory
from peft_study.profiling.meters import AssumedPower, NotMeasurable, ZeusMeter
from peft_study.profiling.steps import profile_energy, profile_training


def profile(config: dict[str, Any], data: Path) -> dict[str, Any]:
    """Measure every cell of `configs/profile.json` on its prepared task.

    Returns:
        `{task, batch_size, machine, training, memory, inference, energy}`: see `profile_training`,
        `profile_memory`, `profile_inference` and `profile_energy`. Where no meter can be read,
        `energy` is `{cells: None, source: None, reason: why}`; the reason also stands beside an
        estimate.
    """
    cells, rounds = config["cells"], config["rounds"]
    before, mine = psutil.cpu_times(), os.times()
    methods = {name: cell for name, cell in cells.items() if name == cell["method"]}
    found = {
        "task": config["task"],
        "batch_size": config["batch_size"],
        "memory": profile_memory(methods, data),
        "training": profile_training(cells, data, rounds, config["reference"]),
        "inference": profile_inference(methods, data, rounds),
        "energy": measure_energy(cells, data, config["assumed_watts"]),
    }
    return found | {"machine": describe_machine() | {"other_cpu_share": _others(before, mine)}}


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory": psutil.virtual_memory().total,
        "system": platform.platform(),
        "torch": torch.__version__,
    }


def measure_energy(
    cells: dict[str, Any], data: Path, assumed_watts: float | None
) -> dict[str, Any]:
    """Measure the energy of training, or estimate it if that is asked for, or say why not."""
    device = torch.device(next(iter(cells.values()))["train"]["device"])
    reason = None
    try:
        meter: ZeusMeter | AssumedPower = ZeusMeter(device)
    except NotMeasurable as error:
        reason = str(error)
        if assumed_watts is None:
            return {"cells": None, "source": None, "reason": reason}
        meter = AssumedPower(assumed_watts)
    source = "+".join(meter.sources)
    return {"cells": profile_energy(cells, data, meter), "source": source, "reason": reason}


def _others(before: Any, mine: Any) -> float:
    """Return the share of the processors that other programs have used since then."""
    after, used = psutil.cpu_times(), os.times()
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    own = sum(used[:4]) - sum(mine[:4])
    # Guests are counted as users, too.
    total = sum(seconds for name, seconds in spent.items() if not name.startswith("guest"))
    busy = total - spent["idle"] - spent.get("iowait", 0.0)
    return max(0.0, busy - own) / total if total else 0.0
