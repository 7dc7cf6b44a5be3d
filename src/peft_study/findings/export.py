"""Adapters to take away: the one of each LoRA cell's median seed, in PEFT's format, with a card."""

import shutil
import statistics
from pathlib import Path
from typing import Any

from peft_study.files import read_json, write_json
from peft_study.findings.aggregate import METHOD_NAMES
from peft_study.findings.statistics import metrics_of, scores
from peft_study.methods import CONFIG_FILE, WEIGHTS_FILE

IN_PEFTS_FORMAT = ("lora", "peft_lora", "loralib_lora")


def median_seed(cell: dict[str, Any], metric: str) -> str:
    """Return the seed whose reported score is the median; of an even number, the lower one.

    Args:
        cell: what `peft_study.findings.evaluate` found.
        metric: the task's main one.
    """
    reported = scores(cell, metric, cell["report"])
    median = statistics.median_low(reported.values())
    return next(seed for seed, score in reported.items() if score == median)


def export_adapter(
    study: dict[str, Any], cell: dict[str, Any], runs: Path, directory: Path
) -> None:
    """Copy a cell's median adapter to `directory`, and write a model card beside it.

    Args:
        study: `configs/report.json`.
        cell: what `peft_study.findings.evaluate` found, of a method in `IN_PEFTS_FORMAT`.
        runs: the cell's folder of runs.
        directory: receives what `peft.PeftModel.from_pretrained` loads.
    """
    seed = median_seed(cell, study["main_metrics"][cell["task"]])
    adapter = runs / f"seed-{seed}" / "adapter"
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(adapter / WEIGHTS_FILE, directory / WEIGHTS_FILE)
    config = read_json(adapter / CONFIG_FILE)
    if study["model"]["revision"]:
        hub = {"base_model_name_or_path": study["model"]["name"]}
        config |= hub | {"revision": study["model"]["revision"]}
    write_json(directory / CONFIG_FILE, config)
    (directory / "README.md").write_text(model_card(study, cell, seed), encoding="utf-8")


def model_card(study: dict[str, Any], cell: dict[str, Any], seed: str) -> str:
    """Return the model card of an adapter, with what it was trained on and what it scored."""
    task, method, report = cell["task"], cell["method"], cell["report"]
    model, adapter, data = study["model"], study["adapters"][method], cell["data"]
    revision = f", revision `{model['revision']}`" if model["revision"] else ""
    init = study["mnli_init"]
    start = f"the intermediate task `{init['task']}`" if task in init["tasks"] else "the encoder"
    outputs = len(study["outputs"][task] or ["score"])
    rows = [
        f"| {metric} | {own:.4f} | {statistics.median(every):.4f} | {spread} | {len(every)} |"
        for metric in metrics_of(cell)
        for own, every in [
            (scores(cell, metric, report)[seed], list(scores(cell, metric, report).values()))
        ]
        for spread in [f"{statistics.stdev(every):.4f}" if len(every) > 1 else "–"]
    ]
    labels = study["outputs"][task]
    meaning = f"in the order {', '.join(labels)}" if labels else "one score"
    return f"""---
library_name: peft
tags:
- lora
- text-classification
---

# {METHOD_NAMES[method]} for {task}

LoRA of rank {adapter["r"]} (alpha {adapter["alpha"]:g}, dropout {adapter["dropout"]:g}) on
{", ".join(adapter["targets"])} of `{model["name"]}`{revision}, with its task head:
{cell["trainable"]["adapter"]:,} + {cell["trainable"]["head"]:,} trained parameters. Of the study
`{study["study"]}`, the run whose score is the median of its seeds: seed {seed}.

## Scores

As fractions, at the {report} evaluation of the run on {data["validation"]["rows"]:,} held-out rows:

| metric | this adapter | median of seeds | std | seeds |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

## Training

{data["train"]["rows"]:,} rows of `{task}` (source: {study["data"]["source"]}; SHA-256 of their ids
`{data["train"]["sha256_of_ids"]}`), starting from {start}. Texts were truncated at
{model["max_length"]} tokens.

## Use

```
from peft import PeftModel
from transformers import AutoModelForSequenceClassification as Classifier

model = Classifier.from_pretrained(ENCODER, num_labels={outputs})
model = PeftModel.from_pretrained(model, FOLDER)
```

`ENCODER` is the model named above, `FOLDER` this one. The outputs are {meaning}.

## Licence

Weights that were trained on data and from a model of others: the licences of the encoder and of the
data hold. It is the outcome of a comparison of methods, not a product: it was chosen for a median
score on few rows, and nothing else was examined.
"""
