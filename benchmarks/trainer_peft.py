"""One run as a user of Hugging Face's run_glue.py trains it: `transformers.Trainer` and PEFT.

Model, head, data and hyperparameters are those of a cell of the study. Where run_glue.py would
spend more time on something that we do not measure, the peer is spared it: the rows are tokenised
already, nothing is saved, nothing is logged but the evaluations.

    python benchmarks/trainer_peft.py --method lora --task movie_polarity --output result.json
"""

import math
import statistics
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from cells import PeerRun, options, read_cell
from peft_study.data.metrics import score
from peft_study.data.tasks import Task
from peft_study.encoders.backbone import load_model, projections
from peft_study.encoders.pretrained import model_folder
from peft_study.errors import StudyError, run_command
from peft_study.files import write_json
from peft_study.parity.whole_run import trainer_arguments
from peft_study.run_config import AdapterHSettings, LoraSettings, RunConfig
from peft_study.training.loop import evaluation_points

WARM_UP_STEPS = 5
PADDED_LENGTH = 128  # run_glue.py's default, max_seq_length with pad_to_max_length


class Evaluations(TrainerCallback):
    """Evaluate after the steps of `points`, and time every step, evaluation left out."""

    def __init__(self, points: set[int]) -> None:
        self.points = points
        self.seconds: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.clock = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.seconds.append(time.perf_counter() - self.clock)
        self.clock = time.perf_counter()
        control.should_evaluate = state.global_step in self.points

    def on_evaluate(self, *_: object, **__: object) -> None:
        self.clock = time.perf_counter()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--padding", choices=("longest", "128"), default="longest")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    config = read_cell(arguments.method, arguments.task).run
    write_json(arguments.output, train(config, arguments.seed, arguments.padding))


def train(config: RunConfig, seed: int, padding: str) -> PeerRun:
    """Train one run; return its scores, steps and seconds."""
    task, hyper = config.definition, config.train
    rows = datasets.load_from_disk(f"data/prepared/{config.task}")
    steps_per_epoch = math.ceil(len(rows["train"]) / hyper.batch_size)
    points = evaluation_points(hyper.epochs, steps_per_epoch, hyper.evaluations_per_epoch)
    watch = Evaluations(points)

    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            model=adapted_model(config, seed),
            args=trainer_arguments(hyper, directory, seed),
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            data_collator=collator(config, padding),
            compute_metrics=lambda found: scores_of(found, task),
            callbacks=[watch],
        )
        trainer.train()

    evaluations = [
        {"step": entry["step"], "loss": entry["eval_loss"]}
        | {name: entry[f"eval_{name}"] for name in task.metrics}
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    ]
    chosen = evaluations[-1]
    if hyper.report == "best":
        chosen = max(evaluations, key=lambda entry: entry[task.metrics[0]])
    seconds = statistics.mean(watch.seconds[WARM_UP_STEPS:] or watch.seconds)
    return PeerRun(torch.get_num_threads(), trainer.state.global_step, seconds, chosen, evaluations)


def adapted_model(config: RunConfig, seed: int) -> torch.nn.Module:
    """Load the encoder with our head of this seed and, but for full fine-tuning, let PEFT adapt it.

    PEFT draws A from the same distribution as we do, but another A: the peer seeds as users do.

    Raises:
        StudyError: the peer has no such method or head.
    """
    encoder, settings = config.encoder, config.settings
    if isinstance(settings, AdapterHSettings) or config.train.head != "trained":
        raise StudyError("only LoRA and full fine-tuning with a trained head have a peer here")
    model = load_model(encoder.name, config.definition.num_outputs, seed, encoder.revision)
    if not isinstance(settings, LoraSettings):
        return model
    if settings.init_std is not None:
        raise StudyError("the peer draws A as PEFT does; leave lora.init_std empty")
    set_seed(seed)
    lora = LoraConfig(
        task_type="SEQ_CLS",  # trains the head as well
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(projections(model, list(settings.targets))),
    )
    return get_peft_model(model, lora)


def collator(config: RunConfig, padding: str) -> DataCollatorWithPadding:
    """Pad a batch to its longest row, or every row to `PADDED_LENGTH` tokens."""
    folder = model_folder(config.encoder.name, config.encoder.revision)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if padding == "longest":
        return DataCollatorWithPadding(tokenizer)
    return DataCollatorWithPadding(tokenizer, padding="max_length", max_length=PADDED_LENGTH)


def scores_of(found: EvalPrediction, task: Task) -> dict[str, float]:
    """Score logits (rows, outputs) with the study's metrics."""
    logits, labels = np.asarray(found.predictions), np.asarray(found.label_ids)
    prediction = logits.argmax(axis=-1) if task.labels else logits.squeeze(-1)
    return score(task.metrics, prediction, labels)


if __name__ == "__main__":
    run_command(main)
