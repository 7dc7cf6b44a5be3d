"""Our training beside Hugging Face's: PEFT's LoRA through `transformers.Trainer`, step by step."""

import copy
import tempfile
from dataclasses import replace
from itertools import chain
from typing import Any

import peft
import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from peft_study.encoders.architectures import WEIGHTS
from peft_study.encoders.backbone import head_parameters, load_model, set_head
from peft_study.errors import StudyError
from peft_study.methods import load_method, lora
from peft_study.parity.numbers import (
    ALPHA,
    HYPER,
    RANK,
    TASK,
    largest,
    lora_settings,
    pefts_model,
    random_rows,
)
from peft_study.run_config import PEFT_PREFIX, FullFtSettings, Hyperparameters, LoraSettings
from peft_study.training.batches import training_order
from peft_study.training.loop import make_accelerator, make_optimizer, training_steps
from peft_study.training.padding import pad

# So much decay that a bias which decays by mistake ends far beyond the tolerance.
RUN_HYPER = replace(HYPER, weight_decay=10.0)


class InOrder(transformers.Trainer):
    """A Trainer that reads rows in the order given, and keeps its losses, which its log rounds."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.remove_callback(transformers.PrinterCallback)
        self.losses: list[Tensor] = []

    def get_train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the batches of an epoch; the Trainer's own would be shuffled."""
        return DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
        )

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Return the loss of one batch, a scalar, after its gradients were added."""
        loss = super().training_step(*arguments, **named)
        self.losses.append(loss)
        return loss


def whole_run_differences(folder: str) -> dict[str, float]:
    """Train LoRA for an epoch from its own start, ours by our loop, PEFT's by the Trainer.

    Dropout is off: the two would draw it for other places, as one pads and the other does not. A
    is copied; all else each side makes of the encoder and its own configuration.

    Raises StudyError: they train parameters of other names.
    """
    split, plain = random_rows(folder), _without_dropout(load_model(folder, 2, seed=0))
    ours = lora.adapt(copy.deepcopy(plain), LoraSettings(RANK, ALPHA, 0.0, WEIGHTS), seed=0)
    set_head(ours, "trained")
    theirs = pefts_model(plain, dropout=0.0)
    drawn = {name: p for name, p in lora.adapter_state(ours).items() if ".lora_A." in name}
    peft.set_peft_model_state_dict(theirs, peft.get_peft_model_state_dict(theirs) | drawn)

    adamw, accelerator = make_optimizer(ours, RUN_HYPER), make_accelerator(RUN_HYPER)
    steps = training_steps(ours, adamw, split, TASK, RUN_HYPER, 0, accelerator)
    losses = [step.loss for step in steps]

    def batch(rows: list[int]) -> dict[str, Tensor]:
        return pad(split, rows, plain).inputs | {"labels": split.labels[rows]}

    order = training_order(len(split), RUN_HYPER.batch_size, RUN_HYPER.epochs, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = InOrder(
            model=theirs,
            args=trainer_arguments(RUN_HYPER, scratch),
            train_dataset=list(chain.from_iterable(order)),
            data_collator=batch,
        )
        trainer.train()

    head = {PEFT_PREFIX + name: p for name, p in head_parameters(ours).items()}
    ended, others = lora.adapter_state(ours) | head, peft.get_peft_model_state_dict(theirs)
    if other := sorted(set(ended) ^ set(others)):
        raise StudyError(f"parity broken: only one of ours and PEFT's trains '{other[0]}'")
    return {
        "loss_of_every_step": largest(zip(losses, trainer.losses, strict=True)),
        "parameters_after_the_last_step": largest((p, others[n]) for n, p in ended.items()),
    }


def check_decay(folder: str) -> str:
    """Say which parameters decay, of LoRA and of full fine-tuning: those that decay in Trainer.

    Raises StudyError: a parameter decays in one of them only.
    """
    for name, settings in (("lora", lora_settings(WEIGHTS)), ("full_ft", FullFtSettings())):
        method, model = load_method(name), load_model(folder, 2, seed=0)
        method.adapt(model, settings, seed=0)
        set_head(model, "trained")
        ours = _decayed(model, make_optimizer(model, HYPER))
        with tempfile.TemporaryDirectory() as scratch:
            trainer = transformers.Trainer(model=model, args=trainer_arguments(HYPER, scratch))
            theirs = _decayed(model, trainer.create_optimizer())
        if other := sorted(ours ^ theirs):
            where = "ours, not in Trainer" if other[0] in ours else "Trainer, not in ours"
            raise StudyError(f"parity broken: {name}: '{other[0]}' decays in {where}")
    return "Weight decay: as in Hugging Face's Trainer, which spares biases and LayerNorms."


def trainer_arguments(
    hyper: Hyperparameters, folder: str, seed: int = 42
) -> transformers.TrainingArguments:
    """Translate our hyperparameters; all else that decides a result is the Trainer's default."""
    return transformers.TrainingArguments(
        output_dir=folder,
        seed=seed,
        use_cpu=True,
        num_train_epochs=hyper.epochs,
        per_device_train_batch_size=hyper.batch_size,
        learning_rate=hyper.learning_rate,
        lr_scheduler_type={"linear": "linear", "constant": "constant_with_warmup"}[hyper.schedule],
        warmup_ratio=hyper.warmup_ratio,
        weight_decay=hyper.weight_decay,
        adam_beta2=hyper.adam_beta2,
        adam_epsilon=hyper.adam_epsilon,
        max_grad_norm=hyper.max_grad_norm,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


@torch.no_grad()
def _decayed(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of what a step without gradients makes smaller; it ruins the model."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in trainable.values():
        parameter.fill_(1)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name for name, p in trainable.items() if bool((p < 1).all())}


def _without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a classifier whose configuration has every dropout at 0."""
    config = copy.deepcopy(model.config)
    config.update({key: 0.0 for key in config.to_dict() if "dropout" in key})
    quiet = transformers.AutoModelForSequenceClassification.from_config(config)
    quiet.load_state_dict(model.state_dict())
    return quiet
