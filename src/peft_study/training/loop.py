"""One run: a method, a task and a seed, from the pretrained encoder to its predictions."""

import ctypes
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from peft_study.data.metrics import score
from peft_study.data.tasks import Task
from peft_study.encoders.backbone import head_parameters, load_model, set_head
from peft_study.errors import StudyError
from peft_study.files import replacing, sha256, write_json
from peft_study.methods import Method, load_method, saved, training_hooks
from peft_study.run_config import (
    ADAPTER,
    SAVED_RUN,
    WEIGHTS_FILE,
    Hyperparameters,
    RunConfig,
    RunResult,
    SavedRun,
    Schedule,
)
from peft_study.training.batches import Split, by_length, load_splits, longest_first, training_order
from peft_study.training.dropout import use_fast_dropout
from peft_study.training.environment import kept_variables
from peft_study.training.packing import classify, pack
from peft_study.training.resume import Checkpoint, Progress

EVALUATION_BATCH = 64
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


class Step(NamedTuple):
    """The number of an optimiser step, from 1, and what it left.

    `loss` is the batch's mean, a scalar without gradient; `learning_rate` is the next step's.
    """

    step: int
    loss: Tensor
    tokens: int
    learning_rate: float


@kept_variables()  # `accelerate` reads some in every step
def train_run(
    config: RunConfig,
    seed: int,
    data: Path,
    start: Path | None,
    directory: Path,
    checkpoint: Checkpoint | None = None,
) -> RunResult:
    """Train one run and write it below `directory`.

    Writes `history.csv` (a row per evaluation), `timings.csv` (the seconds to reach and to make
    each: of the processor on CPUs, else of the clock), `predictions.parquet` (the validation
    predictions of every evaluation), `run.json` (steps, counts of trainable parameters) and, if the
    configuration says so, `adapter/`, the weights of the evaluation that `train.report` chooses,
    with `study.json`, what they are of.
    All but the timings depends on the arguments alone, however often the run was interrupted and
    went on from its checkpoint. A run whose loss is no longer finite would diverge every time: it
    ends there, and writes `run.json` alone, with the reason.

    Args:
        seed: draws the head, the adapter, the order of the rows and the dropout.
        data: a folder that `peft_study.data.prepare` wrote.
        start: a folder with an intermediate task's adapter, or its fully fine-tuned encoder; of its
            head nothing is used, or, if the configuration says so, all but the output layer. None,
            or a folder without weights, starts from the pretrained encoder.
        checkpoint: where to save the run's state from time to time, and to go on from.

    Raises StudyError: the start does not fit the adapter, or the device is not at hand.
    """
    task, hyper = config.definition, config.train
    accelerator = make_accelerator(hyper)
    train, validation = load_splits(data)
    method, model = build(config, seed, start)
    model = accelerator.prepare(model)
    adamw = make_optimizer(model, hyper)
    reportable = method.adapter_state(model) | head_parameters(model)
    metric = task.metrics[0]
    steps_per_epoch = math.ceil(len(train) / hyper.batch_size)
    evaluations = evaluation_points(hyper.epochs, steps_per_epoch, hyper.evaluations_per_epoch)
    counts = saved.count_trainable(model, method)
    about = {"device": model.device.type, "seed": seed, "trainable": counts}
    run = checkpoint.load(model, adamw) if checkpoint else Progress()
    # Runs may share a core: count the time that this one had of it.
    now = time.process_time if model.device.type == "cpu" else time.perf_counter
    clock = now()
    for step in training_steps(model, adamw, train, task, hyper, seed, accelerator, run.step):
        run.step = step.step
        run.tokens += step.tokens
        run.losses.append(step.loss)
        if run.step in evaluations:
            run.seconds += now() - clock
            clock = now()
            with merging(method, hyper)(model):
                logits = predict(model, validation, task, accelerator)
            loss = float(task_loss(task, logits, validation.labels))
            if not math.isfinite(loss):
                found = f"the loss is {loss} after step {run.step}"
                why = f"{found}; lower the learning rate {hyper.learning_rate}"
                write_json(directory / "run.json", about | {"steps": run.step, "failure": why})
                return RunResult(metric, None, run.step, run.step, run.seconds, why)
            decided = decide(task, logits).numpy()
            scores = score(task.metrics, decided, validation.labels.numpy())
            if hyper.report == "last" or all(scores[metric] > e[metric] for e in run.history):
                run.reported = run.step
                if config.save_weights:
                    run.kept = {name: p.detach().clone() for name, p in reportable.items()}
            train_loss = float(torch.stack(run.losses).mean())
            run.losses.clear()
            run.logits.append(logits)
            run.history.append(
                {"step": run.step, "epoch": run.step / steps_per_epoch}
                | {"train_loss": train_loss, "validation_loss": loss}
                | scores
                | {"learning_rate": step.learning_rate, "tokens": run.tokens}
            )
            seconds = {"train_seconds": run.seconds, "evaluation_seconds": now() - clock}
            run.timings.append({"step": run.step} | seconds)
            clock = now()
        if checkpoint and checkpoint.due():
            run.seconds += now() - clock
            checkpoint.save(run, model, adamw)
            clock = now()

    for name, rows in (("history.csv", run.history), ("timings.csv", run.timings)):
        with replacing(directory / name) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    with replacing(directory / "predictions.parquet") as temporary:
        predictions(task, validation, run).to_parquet(temporary, index=False)
    if config.save_weights:
        with torch.no_grad():
            for name, parameter in reportable.items():
                parameter.copy_(run.kept[name])
        saved.save_adapter(model, method, config.settings, directory / ADAPTER, start)
        tuned = sha256(start / WEIGHTS_FILE) if start and saved.is_encoder(start) else None
        named = replace(config, method=config.module)
        write_json(directory / SAVED_RUN, SavedRun(named, seed, tuned))
    write_json(directory / "run.json", about | {"steps": run.step, "reported_step": run.reported})
    value = next(row[metric] for row in run.history if row["step"] == run.reported)
    return RunResult(metric, value, run.reported, run.step, run.seconds)


def make_accelerator(hyper: Hyperparameters) -> Accelerator:
    """Set up `train.device` and `train.precision`, with deterministic algorithms only.

    On CPUs a process computes on one thread, which makes a run's arithmetic independent of how many
    runs share the machine. bfloat16 is autocast: weights, gradients and the optimiser's state stay
    in float32. TF32 rounds the factors of CUDA's float32 matrix products to 10 bits.

    Raises StudyError: the machine does not have the device.
    """
    keep_freed_memory()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Filling what is about to be written would find its readers, at a cost of up to 8% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = hyper.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = hyper.precision == "tf32"
    accelerator = Accelerator(
        cpu=hyper.device == "cpu", mixed_precision="bf16" if hyper.precision == "bfloat16" else "no"
    )
    if (found := accelerator.device.type) != hyper.device:
        raise StudyError(f"train.device is '{hyper.device}', but this machine has '{found}' only")
    return accelerator


def keep_freed_memory() -> None:
    """Let this process reuse what it frees, where the C library is glibc.

    By default glibc returns large blocks to the system, which clears each page when it is touched
    again: a tenth of a step of full fine-tuning, whose gradients are freed in every step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def build(
    config: RunConfig, seed: int, start: Path | None = None
) -> tuple[Method, PreTrainedModel]:
    """Load the encoder, adapt it and set its head, all from `config`, `seed` and `start` alone."""
    method, encoder = load_method(config.module), config.encoder
    model = load_model(encoder.name, config.definition.num_outputs, seed, encoder.revision)
    weights, settings = (
        start if start and (start / WEIGHTS_FILE).is_file() else None,
        config.settings,
    )
    whole = weights is not None and saved.is_encoder(weights)
    if weights and whole:
        saved.load_encoder(model, weights)
    elif weights:
        settings = saved.drawn_as(settings, weights)
    method.adapt(model, settings, seed)
    if weights and not whole:
        saved.load_adapter(model, method, settings, weights, head=False)
    if weights and config.keeps_head:
        saved.load_inner_head(model, weights)
    set_head(model, config.train.head)
    use_fast_dropout(model)
    return method, model


def merging(
    method: Method, hyper: Hyperparameters
) -> Callable[[PreTrainedModel], AbstractContextManager[object]]:
    """Return the context in which a model predicts: merged, if its method can.

    A merged weight would be rounded as a whole, and a small update lost, in lower precision.
    """
    full_precision = hyper.precision == "float32"
    return getattr(method, "merged", nullcontext) if full_precision else nullcontext


def make_optimizer(model: PreTrainedModel, hyper: Hyperparameters) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of `model`, fused into one pass over them."""
    groups, betas = parameter_groups(model, hyper.weight_decay), (0.9, hyper.adam_beta2)
    rate, epsilon = hyper.learning_rate, hyper.adam_epsilon
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=True)


def training_steps(
    model: PreTrainedModel,
    adamw: torch.optim.AdamW,
    train: Split,
    task: Task,
    hyper: Hyperparameters,
    seed: int,
    accelerator: Accelerator,
    done: int = 0,
    phase: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Step]:
    """Train `model` in place, yielding after every optimiser step.

    Gradients are clipped to a global norm of `max_grad_norm`. A batch may be computed in
    `gradient_accumulation_steps` pieces: without dropout its gradient is the same up to rounding.
    What a step draws depends on `seed` and its number alone, so that a run can go on after `done`
    steps; `model` and `adamw` must then be as those steps left them. Who measures gives `phase`,
    whose contexts "forward", "backward" and "optimiser" are entered one after the other.
    """
    steps = hyper.epochs * math.ceil(len(train) / hyper.batch_size)
    warmup = math.ceil(hyper.warmup_ratio * steps)
    factor = partial(rate_factor, hyper.schedule, warmup, steps)
    trainable = [parameter for group in adamw.param_groups for parameter in group["params"]]
    if hooks := training_hooks(model):
        hooks.begin(steps)
    order = training_order(len(train), hyper.batch_size, hyper.epochs, seed)
    for number, rows in enumerate(islice(order, done, None), done):
        model.train()
        torch.manual_seed(step_seed(seed, number))
        rows = longest_first(train, rows)  # as `pack` likes them; a batch has no order
        loss, tokens = torch.zeros((), device=accelerator.device), 0
        piece = math.ceil(len(rows) / hyper.gradient_accumulation_steps)
        for begin in range(0, len(rows), piece):
            part = rows[begin : begin + piece]
            with phase("forward"):
                batch = pack(train, part, model)
                with accelerator.autocast():
                    logits = classify(model, batch).float()
                labels = train.labels[part].to(accelerator.device)
                share = task_loss(task, logits, labels) * (len(part) / len(rows))
                if hooks:
                    share = share + hooks.penalty() * (len(part) / len(rows))
            with phase("backward"):
                accelerator.backward(share)
            loss += share.detach()
            tokens += batch.tokens
        with phase("optimiser"):
            accelerator.clip_grad_norm_(trainable, hyper.max_grad_norm)
            for group in adamw.param_groups:
                group["lr"] = hyper.learning_rate * factor(number)
            adamw.step()
            if hooks:
                hooks.after_step(number)
            adamw.zero_grad()
        yield Step(number + 1, loss, tokens, hyper.learning_rate * factor(number + 1))


def rate_factor(schedule: Schedule, warmup: int, steps: int, step: int) -> float:
    """Return the learning rate's factor: from 0 to 1 over `warmup` steps, then as `schedule` says.

    `linear` falls to 0 at the last of `steps`, `constant` stays 1.
    """
    if step < warmup:
        return step / warmup
    return 1.0 if schedule == "constant" else (steps - step) / max(1, steps - warmup)


def step_seed(seed: int, step: int) -> int:
    """Return 32 bits that look random and depend on a run's seed and a step's number alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:4])


def parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters: matrices decay; biases and LayerNorm weights do not.

    Source: the convention of BERT's and of Hugging Face's training code.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def evaluation_points(epochs: int, steps_per_epoch: int, per_epoch: int) -> set[int]:
    """Return the steps after which to evaluate: `per_epoch` evenly, always at an epoch's end."""
    per_epoch = min(per_epoch, steps_per_epoch)
    within = [round(k * steps_per_epoch / per_epoch) for k in range(1, per_epoch + 1)]
    return {epoch * steps_per_epoch + step for epoch in range(epochs) for step in within}


def task_loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of logits (rows, outputs) for labels (rows,): cross-entropy or MSE."""
    if task.labels is None:
        return F.mse_loss(logits.squeeze(-1), labels)
    return F.cross_entropy(logits, labels)


@torch.no_grad()
def predict(model: PreTrainedModel, split: Split, task: Task, accelerator: Accelerator) -> Tensor:
    """Return the logits (rows, outputs) of every row of `split`, float32, in the split's order."""
    model.eval()
    logits = torch.empty(len(split), task.num_outputs)
    for rows in by_length(split, EVALUATION_BATCH):
        with accelerator.autocast():
            logits[rows] = classify(model, pack(split, rows, model)).float().cpu()
    return logits


def decide(task: Task, logits: Tensor) -> Tensor:
    """Return the predictions (rows,) of logits (rows, outputs): class indices, or scores."""
    return logits.argmax(dim=-1) if task.labels else logits.squeeze(-1)


def predictions(task: Task, split: Split, run: Progress) -> pd.DataFrame:
    """Return a row for each evaluation of `run` and each example, logits as a list of float32."""
    frames, labelled = [], {"id": split.ids, "label": split.labels.numpy()}
    for row, logits in zip(run.history, run.logits, strict=True):
        found = {"prediction": decide(task, logits).numpy(), "logits": list(logits.numpy())}
        place = {"step": row["step"], "epoch": row["epoch"]}
        frames.append(pd.DataFrame(labelled | found | place))
    return pd.concat(frames, ignore_index=True)
