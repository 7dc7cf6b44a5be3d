"""Stage `curves`: stability over seeds, and what it takes to reach equal scores."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_json, write_json
from peft_study.findings.curves import (
    epoch_seconds,
    iso_accuracy,
    learning_curves,
    over_seeds,
    stability,
    sweep_curves,
)


def main() -> None:
    config = read_json(Path("configs/curves.json"))
    curves = learning_curves(config, Path("runs"))
    profile = read_json(Path("metrics/profile.json"))
    energy = profile.get("energy", {"cells": None, "source": None, "reason": "no profile"})
    joules = {
        (profile["task"], method): cell["joules_per_epoch"]
        for method, cell in (energy["cells"] or {}).items()
    }
    runs = iso_accuracy(curves, config["iso_margin"], joules)
    write_json(Path("metrics/curves.json"), over_seeds(curves))
    write_json(Path("metrics/sweep_curves.json"), over_seeds(sweep_curves(config, Path("runs"))))
    write_json(Path("metrics/stability.json"), stability(curves))
    write_json(
        Path("metrics/iso_accuracy.json"),
        {
            "margin": config["iso_margin"],
            "energy": {key: energy[key] for key in ("source", "reason")},
            "runs": runs,
            "seconds_per_epoch": epoch_seconds(curves),
        },
    )
    reached = sum(run["reached"] for run in runs)
    print(f"curves: {reached} of {len(runs)} runs reach the equal score of their task")
    print("curves: wrote metrics/{curves,sweep_curves,stability,iso_accuracy}.json")


if __name__ == "__main__":
    run_command(main)
