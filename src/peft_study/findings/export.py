"""Adapters to take away: the one of each cell's median seed, in PEFT's format, with a card."""

import shutil
import statistics
from itertools import product
from pathlib import Path

from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.findings.statistics import spread
from peft_study.findings.wording import GAP, marked
from peft_study.records.scores import Cell, Cells
from peft_study.records.study import StudyInfo
from peft_study.run_config import ADAPTER, CONFIG_FILE, WEIGHTS_FILE


def export(study: StudyInfo, scored: Cells, runs: Path, directory: Path) -> int:
    """Export every cell whose method has adapters in PEFT's format; return how many they are.

    Raises StudyError: the runs of such a cell are not here, as in a clone that pulled others only.
    """
    exported = [method.name for method in study.methods if method.exported]
    cells = [scored[key] for key in product(exported, study.main_metrics) if key in scored]
    for cell in cells:
        folder = runs / cell.method / cell.task
        if not folder.is_dir():
            raise StudyError(f"{folder}: is not here; fetch it with 'dvc pull {folder.parent}'")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for cell in cells:
        where = Path(cell.method, cell.task)
        _export(study, cell, runs / where, directory / where)
    return len(cells)


def median_seed(cell: Cell, metric: str) -> str:
    """Return the seed whose reported score is the median; of an even number, the lower one."""
    reported = cell.scores(metric)
    median = statistics.median_low(reported.values())
    return next(seed for seed, score in reported.items() if score == median)


def _export(study: StudyInfo, cell: Cell, runs: Path, directory: Path) -> None:
    """Copy a cell's median adapter to `directory`, for `peft.PeftModel.from_pretrained`."""
    seed = median_seed(cell, study.main_metrics[cell.task])
    adapter = runs / f"seed-{seed}" / ADAPTER
    directory.mkdir(parents=True)
    shutil.copyfile(adapter / WEIGHTS_FILE, directory / WEIGHTS_FILE)
    config = read_json(adapter / CONFIG_FILE)
    if study.model.revision:
        config |= {"base_model_name_or_path": study.model.name, "revision": study.model.revision}
    write_json(directory / CONFIG_FILE, config)
    (directory / "README.md").write_text(_model_card(study, cell, seed), encoding="utf-8")


def _model_card(study: StudyInfo, cell: Cell, seed: str) -> str:
    """Say what an adapter was trained on and what it scored."""
    model, init, task = study.model, study.mnli_init, cell.task
    (method,) = (method for method in study.methods if method.name == cell.method)
    (labels,) = (found.labels for found in study.tasks if found.name == task)
    revision = f", revision `{model.revision}`" if model.revision else ""
    start = f"the intermediate task `{init.task}`" if task in init.tasks else "the encoder"
    rows = []
    for metric in cell.metrics:
        scores = cell.scores(metric)
        _, std, _ = spread(scores.values())
        shown = [f"{scores[seed]:.4f}", f"{statistics.median(scores.values()):.4f}"]
        shown.append(GAP if std is None else f"{std:.4f}")
        rows.append(f"| {metric} | {' | '.join(shown)} | {len(scores)} |")
    meaning = f"in the order {', '.join(labels)}" if labels else "one score"
    train, held_out = cell.trained_on(seed), cell.data["validation"].rows
    alpha, dropout = (f"{method.settings[key]:g}" for key in ("alpha", "dropout"))
    return f"""---
library_name: peft
tags:
- lora
- text-classification
---

# {marked(f"{method.label} for {task}", study)}

LoRA of rank {method.rank} (alpha {alpha}, dropout {dropout}) on
{", ".join(method.weights)} of `{model.name}`{revision}, with its task head:
{cell.trainable.adapter:,} + {cell.trainable.head:,} trained parameters. Of the study
`{study.study}`, the run whose score is the median of its seeds: seed {seed}.

## Scores

As fractions, at the {cell.report} evaluation of the run on {held_out:,} held-out rows:

| metric | this adapter | median of seeds | std | seeds |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

## Training

{train.rows:,} rows of `{task}` (source: {study.data.source}; SHA-256 of their ids
`{train.sha256_of_ids}`), starting from {start}. Texts were truncated at
{model.max_length} tokens.

## Use

```
from peft import PeftModel
from transformers import AutoModelForSequenceClassification as Classifier

model = Classifier.from_pretrained(ENCODER, num_labels={len(labels or ["score"])})
model = PeftModel.from_pretrained(model, FOLDER)
```

`ENCODER` is the model named above, `FOLDER` this one. The outputs are {meaning}.

## Licence

Weights that were trained on data and from a model of others: the licences of the encoder and of the
data hold. It is the outcome of a comparison of methods, not a product: it was chosen for a median
score on few rows, and nothing else was examined.
"""
