"""`make predict`: apply saved weights to texts of one's own, with the encoder of their training."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peft_study.data.sources import Row
from peft_study.data.sources.tables import read_texts
from peft_study.data.tokens import as_read, load_tokenizer, tokenise
from peft_study.encoders.pretrained import model_digest, model_folder
from peft_study.errors import StudyError, run_command
from peft_study.files import read_record, replacing, sha256
from peft_study.methods import Method, saved
from peft_study.records import Record
from peft_study.run_config import (
    ADAPTER,
    ENCODER,
    MODEL_FILE,
    SAVED_RUN,
    WEIGHTS_FILE,
    RunConfig,
    SavedRun,
)
from peft_study.training.batches import as_split
from peft_study.training.loop import build, decide, make_accelerator, merging, predict

SEPARATORS = {".tsv": "\t", ".csv": ","}


class Loaded(Record):
    """A model as its run left it, in evaluation mode, and how it was trained."""

    config: RunConfig
    method: Method
    model: PreTrainedModel


def load(folder: Path) -> Loaded:
    """Load an exported adapter, or the saved weights of a run.

    Args:
        folder: `exports/<method>/<task>`, or `runs/<method>/<task>/seed-<n>` or its `adapter`.

    Raises StudyError: it holds no saved weights, or the encoder is not at hand, or not the one that
    was trained.
    """
    run = folder.parent if folder.name == ADAPTER else folder
    weights = run / ADAPTER if (run / ADAPTER).is_dir() else run
    if not folder.is_dir():
        raise StudyError(
            f"ADAPTER: got '{folder}'; there is no such folder; name one such as "
            "exports/lora/TASK, or runs/lora/TASK/seed-1"
        )
    for path in (run / SAVED_RUN, weights / WEIGHTS_FILE):
        if not path.is_file():
            raise StudyError(
                f"ADAPTER: got '{folder}', without {path.name}; must be an exported adapter, or a "
                "run that saved its weights (full fine-tuning: full_ft.save_weights: true)"
            )
    said = read_record(run / SAVED_RUN, SavedRun)
    config, start = replace(said.run, settings=saved.drawn_as(said.run.settings, weights)), None
    if said.tuned_encoder and weights == run:
        tuned = run.parents[1] / ENCODER
        _check(tuned / MODEL_FILE, said.tuned_encoder)
        config = replace(config, encoder=replace(config.encoder, name=str(tuned), revision=None))
    elif said.tuned_encoder and config.module != "full_ft":
        start = run.parents[3] / "init" / run.parents[1].name / "start"
        _check(start / WEIGHTS_FILE, said.tuned_encoder)
    if config.encoder.name == said.run.encoder.name:
        name, revision, expected = said.run.encoder.name, said.run.encoder.revision, config.encoder
        if expected.sha256 and model_digest(model_folder(name, revision)) != expected.sha256:
            raise StudyError(
                f"model.name is '{name}': its files are not those that {folder} was trained on; "
                "put these back"
            )
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(config.train.device):
        config = replace(config, train=replace(config.train, device="cpu"))
    method, model = build(config, said.seed, start)
    saved.load_adapter(model, method, config.settings, weights)
    return Loaded(config, method, model)


def _check(path: Path, expected: str) -> None:
    """Raise a StudyError unless a fine-tuned encoder is there, and the one that was adapted."""
    if not path.is_file():
        raise StudyError(f"{path}: is not here, the encoder of this adapter; fetch it, too")
    if sha256(path) != expected:
        raise StudyError(f"{path}: is another encoder than the one that was adapted; put that back")


def logits_of(loaded: Loaded, rows: list[Row]) -> Tensor:
    """Return the logits (rows, outputs) of texts, as the run itself would evaluate them.

    Raises StudyError: the tokeniser is missing, or does not fit the encoder.
    """
    config = loaded.config
    tokenizer = load_tokenizer(config.encoder.name, config.encoder.revision)
    # Without labels, which nothing here reads.
    unlabelled = [replace(row, label=0) for row in rows]
    table = as_read(tokenise(unlabelled, tokenizer, config.max_length), config.encoder)
    accelerator = make_accelerator(config.train)
    model = loaded.model.to(accelerator.device)
    with merging(loaded.method, config.train)(model):
        return predict(model, as_split(table.to_pydict()), config.definition, accelerator)


def predicted(loaded: Loaded, rows: list[Row]) -> pd.DataFrame:
    """Return a row for each text: `id`, `prediction`, and the probability of each class.

    A prediction is a label or, of a regression, a score.
    """
    task, logits = loaded.config.definition, logits_of(loaded, rows)
    found = pd.DataFrame({"id": [row.id for row in rows]})
    decided = decide(task, logits).tolist()
    found["prediction"] = [task.labels[n] for n in decided] if task.labels else decided
    shares = logits.double().softmax(-1).numpy()
    for number, label in enumerate(task.labels or ()):
        found[f"probability of {label}"] = shares[:, number]
    return found


def write_predictions(adapter: Path, file: Path, out: Path) -> int:
    """Apply saved weights to the texts of a table; write `predicted` to `out`; return its rows.

    Raises StudyError as `load` and `read_texts`, and if `out` is there already, or neither TSV nor
    CSV. Then nothing is written.
    """
    if out.suffix.lower() not in SEPARATORS:
        raise StudyError(f"OUT: got '{out}'; must end in {' or '.join(SEPARATORS)}")
    if out.exists():
        raise StudyError(f"OUT: '{out}' is there already; move it away, or name another with OUT")
    loaded = load(adapter)
    table = predicted(loaded, list(read_texts(file, loaded.config.definition)))
    with replacing(out) as temporary:
        separator = SEPARATORS[out.suffix.lower()]
        table.to_csv(temporary, sep=separator, index=False, quoting=csv.QUOTE_MINIMAL)
    return len(table)


def main() -> None:
    adapter, file, out = (*sys.argv[1:], "", "", "")[:3]
    if not (adapter and file):
        raise StudyError("predict: name both: make predict ADAPTER=exports/lora/TASK FILE=mine.tsv")
    path = Path(out) if out else Path(file).with_suffix(".predictions.tsv")
    number = write_predictions(Path(adapter), Path(file), path)
    print(f"predict: wrote the predictions of {number} rows to {path}")


if __name__ == "__main__":
    run_command(main)
