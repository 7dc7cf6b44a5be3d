"""The whole profile: every recipe, measured by turns on one machine."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from peft_study.profiling.inference import profile_inference
from peft_study.profiling.memory import profile_memory
from peft_study.profiling.meters import AssumedPower, Meter, NotMeasurable, ZeusMeter
from peft_study.profiling.steps import profile_energy, profile_training
from peft_study.records.costs import Batch, EnergySource, Machine, Profile, TaskProfile
from peft_study.run_config import RunConfig
from peft_study.stage_configs import ProfileConfig, ProfiledTask


def profile(config: ProfileConfig, data: Path) -> Profile:
    """Measure every cell of a profile on its prepared tasks, folders of `data`."""
    device = next(iter(config.tasks[0].cells.values())).train.device
    share_of_others = watch_others()
    source, meter = find_meter(torch.device(device), config.assumed_watts)
    tasks = [profile_task(task, data, config, meter) for task in config.tasks]
    return Profile(describe_machine(share_of_others(), device), source, tuple(tasks))


def profile_task(
    task: ProfiledTask, data: Path, config: ProfileConfig, meter: Meter | None
) -> TaskProfile:
    """Measure every cell on one task; see the modules beside this one.

    Memory and inference are measured of one recipe of each method, training of all.
    """
    name, place = task.prepared.task, config.methods.index
    # A file's keys are sorted by name: back to their order.
    cells = dict(sorted(task.cells.items(), key=lambda item: place(item[1].method)))
    first: dict[str, RunConfig] = {}
    for cell in cells.values():
        first.setdefault(cell.method, cell)
    methods, of, rows = list(first.values()), cells[config.reference], data / name
    training = profile_training(cells, rows, config.rounds, config.reference)
    inference, second_copy = profile_inference(methods, rows, config.rounds)
    return TaskProfile(
        task=name,
        batches={
            method: Batch(cell.train.batch_size, cell.train.gradient_accumulation_steps)
            for method, cell in first.items()
        },
        training=tuple(training),
        memory=tuple(profile_memory(methods, rows, config.rounds, of)),
        inference=tuple(inference),
        second_copy=second_copy,
        energy=tuple(profile_energy(cells, rows, meter)) if meter else (),
    )


def describe_machine(other_cpu_share: float, device: str = "cpu") -> Machine:
    """Return what figures measured on `device` depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return Machine(
        cpu=names[0] if names else platform.processor(),
        cores=psutil.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        memory=psutil.virtual_memory().total,
        system=platform.platform(),
        torch=str(torch.__version__),
        other_cpu_share=other_cpu_share,
    )


def find_meter(
    device: torch.device, assumed_watts: float | None
) -> tuple[EnergySource, Meter | None]:
    """Return what measures energy, or estimates it if that is asked for, or why nothing does."""
    try:
        meter = ZeusMeter(device)
    except NotMeasurable as error:
        if assumed_watts is None:
            return EnergySource(None, str(error)), None
        estimate = AssumedPower(assumed_watts)
        return EnergySource("+".join(estimate.sources), str(error)), estimate
    return EnergySource("+".join(meter.sources), None), meter


def watch_others() -> Callable[[], float]:
    """Return what says which share of the processors other programs have used since now."""
    before, mine = psutil.cpu_times(), os.times()

    def share() -> float:
        after, used = psutil.cpu_times(), os.times()
        spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
        own = sum(used[:4]) - sum(mine[:4])
        # Guests are counted as users, too.
        total = sum(seconds for name, seconds in spent.items() if not name.startswith("guest"))
        busy = total - spent["idle"] - spent.get("iowait", 0.0)
        return max(0.0, busy - own) / total if total else 0.0

    return share
