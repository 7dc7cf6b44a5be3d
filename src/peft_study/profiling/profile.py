"""The whole profile: every recipe, measured by turns on one machine."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from peft_study.methods import METHODS
from peft_study.profiling.inference import profile_inference
from peft_study.profiling.memory import in_fresh_process, measure_memory
from peft_study.profiling.meters import AssumedPower, NotMeasurable, ZeusMeter
from peft_study.profiling.steps import profile_energy, profile_training
from peft_study.records.costs import Energy, Machine, Profile
from peft_study.run_config import RunConfig
from peft_study.stage_configs import ProfileConfig


def profile(config: ProfileConfig, data: Path) -> Profile:
    """Measure every cell of a profile on its prepared task; see the modules beside this one.

    Memory and inference are measured of one recipe of each method, training of all.
    """
    share_of_others, place = watch_others(), list(METHODS).index
    # A file's keys are sorted by name: back to the order of the table.
    cells = dict(sorted(config.cells.items(), key=lambda item: place(item[1].method)))
    first: dict[str, RunConfig] = {}
    for cell in cells.values():
        first.setdefault(cell.method, cell)
    methods = list(first.values())
    memory = [in_fresh_process(measure_memory, method, data) for method in methods]
    training = profile_training(cells, data, config.rounds, config.reference)
    inference = profile_inference(methods, data, config.rounds)
    energy = measure_energy(cells, data, config.assumed_watts)
    machine = describe_machine(share_of_others())
    costs = tuple(training), tuple(memory), tuple(inference), energy
    return Profile(config.task, config.batch_size, machine, *costs)


def describe_machine(other_cpu_share: float) -> Machine:
    """Return what the figures depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return Machine(
        cpu=names[0] if names else platform.processor(),
        cores=psutil.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        memory=psutil.virtual_memory().total,
        system=platform.platform(),
        torch=str(torch.__version__),
        other_cpu_share=other_cpu_share,
    )


def measure_energy(cells: dict[str, RunConfig], data: Path, assumed_watts: float | None) -> Energy:
    """Measure the energy of training, or estimate it if that is asked for, or say why not."""
    device = torch.device(next(iter(cells.values())).train.device)
    reason = None
    try:
        meter: ZeusMeter | AssumedPower = ZeusMeter(device)
    except NotMeasurable as error:
        reason = str(error)
        if assumed_watts is None:
            return Energy(source=None, reason=reason)
        meter = AssumedPower(assumed_watts)
    costs = profile_energy(cells, data, meter)
    return Energy(source="+".join(meter.sources), reason=reason, cells=tuple(costs))


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
