"""The state of an unfinished run: saved now and then, verified when the run goes on."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.files import replacing, sha256
from peft_study.methods import training_hooks

FILE = "checkpoint-{}.safetensors"
UNFINISHED = FILE.format("unfinished")


@dataclass
class Progress:
    """What a run has done so far, apart from its weights and its optimiser's state.

    Attributes:
        step, tokens: optimiser steps, and tokens trained on.
        seconds: of training, evaluations not counted; of the processor on CPUs.
        reported: the step of the evaluation that `train.report` has chosen so far.
        history, timings: a row per evaluation.
        losses: of the steps since the last evaluation, scalars on the model's device.
        logits: of every evaluation, (rows, outputs).
        kept: the weights to save, as they were at step `reported`.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    reported: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    timings: list[dict[str, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The last saved state of one run: a file, named after its hash, in the run's own folder.

    One is due `interval` seconds after the last.
    """

    def __init__(self, directory: Path, interval: float) -> None:
        self.directory, self.interval = directory, interval
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Say whether the interval has passed since the last save."""
        return time.monotonic() - self._saved >= self.interval

    def save(
        self, progress: Progress, model: PreTrainedModel, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the state, whole or not at all, and remove the one before."""
        tensors = {f"kept/{name}": value for name, value in progress.kept.items()}
        tensors |= {f"logits/{i}": value for i, value in enumerate(progress.logits)}
        if progress.losses:
            tensors["losses"] = torch.stack(progress.losses)
        for name, parameter in _trainable(model).items():
            tensors[f"parameter/{name}"] = parameter.detach()
            # One that no loss has reached yet has no state.
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value
        if hooks := training_hooks(model):
            tensors |= {f"hooks/{name}": tensor for name, tensor in hooks.state().items()}
        tensor_fields = ("losses", "logits", "kept")
        scalars = {key: v for key, v in vars(progress).items() if key not in tensor_fields}
        unfinished, metadata = self.directory / UNFINISHED, {"progress": json.dumps(scalars)}
        with replacing(unfinished) as temporary:
            whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata)
        path = self.directory / FILE.format(sha256(unfinished))
        unfinished.replace(path)
        for other in self._files() - {path}:
            other.unlink()
        self._saved = time.monotonic()

    @torch.no_grad()
    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Progress:
        """Set `model` and `optimizer` to the saved state, if there is one, and return its progress.

        A file that does not have the hash that its name says is reported and removed.
        """
        # What a kill left of a save; the state before it is still there.
        for leftover in (*self.directory.glob(".*"), *self.directory.glob(UNFINISHED)):
            leftover.unlink()
        for path in sorted(self._files()):
            if path.name != FILE.format(sha256(path)):
                print(f"warning: {path}: damaged, so it is not used", file=sys.stderr)
                path.unlink()
                continue
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                progress = Progress(**json.loads(file.metadata()["progress"]))
            trainable = _trainable(model)
            device = next(iter(trainable.values())).device
            progress.losses = list(tensors.get("losses", torch.empty(0)).to(device).unbind())
            logits = _below(tensors, "logits/")
            progress.logits = [logits[str(i)] for i in range(len(logits))]
            progress.kept = _below(tensors, "kept/")
            keys = ("step", "exp_avg", "exp_avg_sq")
            for name, parameter in trainable.items():
                parameter.copy_(tensors[f"parameter/{name}"])
                state = {key: tensors.get(f"{key}/{name}") for key in keys}
                if found := {key: t.to(device) for key, t in state.items() if t is not None}:
                    optimizer.state[parameter] = found
            if hooks := training_hooks(model):
                left = _below(tensors, "hooks/")
                hooks.restore({name: tensor.to(device) for name, tensor in left.items()})
            return progress
        return Progress()

    def _files(self) -> set[Path]:
        return set(self.directory.glob(FILE.format("*")))


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
