"""A training step of each method of the study, packed, beside the same step through the model's own
forward, with rows padded to the longest of their batch.

Both see the same batches; in every round each method takes both ways in turn, in an order that is
drawn for it. Methods that need the model's own forward have no packed step.

    python benchmarks/packed_recipes.py --task movie_polarity --rounds 12
"""

from pathlib import Path
from typing import Any
from unittest import mock

from transformers import PreTrainedModel

from cells import options, read_cell
from peft_study.errors import run_command
from peft_study.methods import Method
from peft_study.profiling.intervals import ratio
from peft_study.profiling.steps import WARM_UP_STEPS, Training, shuffled
from peft_study.run_config import RunConfig
from peft_study.study import load_study
from peft_study.training import loop, padding

WAYS = (False, True)  # padded?


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    data = Path("data/prepared", arguments.task)
    print("| method | packed, ms | padded, ms | padded / packed |")
    print("| --- | ---: | ---: | ---: |")
    for name in load_study().methods:
        config = read_cell(name, arguments.task).run
        _, model = loop.build(config, seed=1)
        if padding.uses_own_forward(model):
            print(f"| {name} | needs the model's own forward | | |")
            continue
        seconds = measured(config, data, arguments.rounds)
        found = ratio(seconds[True], seconds[False])
        medians = [1000 * sorted(seconds[way])[len(seconds[way]) // 2] for way in WAYS]
        ends = f" ({found.low:.2f} to {found.high:.2f})" if found.low and found.high else ""
        shown = " | ".join(f"{value:.1f}" for value in medians)
        print(f"| {name} | {shown} | {found.value:.2f}{ends} |", flush=True)


def measured(config: RunConfig, data: Path, rounds: int) -> dict[bool, list[float]]:
    """Return the seconds of steps of both ways, by whether they are padded."""
    trainings = {way: training(config, data, way) for way in WAYS}
    for _ in range(WARM_UP_STEPS):
        for way in WAYS:
            trainings[way].step()
    found: dict[bool, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in shuffled(WAYS, number):
            found[way].append(trainings[way].step()["step"])
    return found


def training(config: RunConfig, data: Path, padded: bool) -> Training:
    """Return a cell's training, whose model uses its own forward if `padded`."""
    build = loop.build

    def built(*given: Any, **named: Any) -> tuple[Method, PreTrainedModel]:
        method, model = build(*given, **named)
        if padded:
            padding.use_own_forward(model)
        return method, model

    with mock.patch.object(loop, "build", built):
        return Training(config, data)


if __name__ == "__main__":
    run_command(main)
