"""What our LoRA computes beside PEFT's and loralib's, from equal A and B, on a real encoder.

Everything is computed in float32 on one thread. With one seed all draw the same dropout, because
they share the module that draws it.
"""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import WEIGHTS, Weight
from peft_study.encoders.backbone import head_modules, head_parameters, load_model, set_head
from peft_study.encoders.pretrained import model_config
from peft_study.methods import METHODS, load_method, lora
from peft_study.methods.saved import load_adapter, save_adapter
from peft_study.records.costs import ParityDifference
from peft_study.run_config import Hyperparameters, LoraSettings
from peft_study.training.batches import Split
from peft_study.training.dropout import use_fast_dropout
from peft_study.training.loop import make_accelerator, make_optimizer, task_loss, training_steps
from peft_study.training.packing import classify, pack
from peft_study.training.padding import pad

# At the papers' r = 8 and alpha = 16 the scalings alpha / r, alpha / 8, 16 / r and r / 4 are all 2.
RANK, ALPHA, DROPOUT = 3, 16.0, 0.1
OURS, PEFTS = "lora", "peft_lora"
OTHERS = [name for name, row in METHODS.items() if row.family == "lora" and name != OURS]
QUERY_VALUE: tuple[Weight, ...] = ("query", "value")
STEPS = 20
BATCH = 8
SPECIAL = 10  # a vocabulary's first tokens; of padding RoBERTa's own forward makes no positions
TASK = TASKS["movie_polarity"]  # for its two classes; the tokens are random
HYPER = Hyperparameters(
    epochs=1,
    batch_size=BATCH,
    gradient_accumulation_steps=1,
    learning_rate=1e-3,
    schedule="linear",
    warmup_ratio=0.06,
    weight_decay=0.01,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    max_grad_norm=1.0,
    evaluations_per_epoch=1,
    head="trained",
    report="last",
    device="cpu",
    precision="float32",
)
# As a user of PEFT writes them. They are not taken from the study's table of architectures, which
# they check.
_BERT: dict[Weight, str] = {
    "query": "query",
    "key": "key",
    "value": "value",
    "output": "attention.output.dense",
}
RAW_NAMES: dict[str, dict[Weight, str]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "deberta-v2": {
        "query": "query_proj",
        "key": "key_proj",
        "value": "value_proj",
        "output": "attention.output.dense",
    },
}
BY_RAW_NAMES = "by PEFT's own names of modules"


def differences(folder: str) -> Iterator[ParityDifference]:
    """Yield what was compared on the encoder in `folder`, one after the other."""
    yield _difference("start", start_differences(folder))
    # On all four weights a wrong name makes no difference: what does is the computation.
    for reference in OTHERS:
        yield _difference("", compare(folder, reference, WEIGHTS), reference, WEIGHTS)
    for weight in WEIGHTS:
        found = raw_name_differences(folder, weight)
        yield _difference(BY_RAW_NAMES, found, PEFTS, (weight,))
    found = compare(folder, PEFTS, WEIGHTS, raw_names=True)
    yield _difference(BY_RAW_NAMES, found, PEFTS, WEIGHTS)
    for reference in OTHERS:
        yield _difference("", compare(folder, reference, QUERY_VALUE), reference, QUERY_VALUE)
    yield _difference("merge", merge_differences(folder))
    yield _difference("files", file_differences(folder))


def _difference(
    what: str,
    largest: dict[str, float],
    method: str | None = None,
    weights: tuple[Weight, ...] = (),
) -> ParityDifference:
    return ParityDifference(method, weights, what, largest, RANK, ALPHA, DROPOUT)


def lora_settings(targets: tuple[Weight, ...]) -> LoraSettings:
    """Return the settings at which LoRAs are compared."""
    return LoraSettings(RANK, ALPHA, DROPOUT, targets)


def raw_config(
    model: PreTrainedModel, targets: tuple[Weight, ...], dropout: float = DROPOUT
) -> peft.LoraConfig:
    """Return PEFT's configuration of the same LoRA, with the names of `RAW_NAMES`."""
    names = RAW_NAMES[model.config.model_type]
    modules = [names[weight] for weight in targets]
    return peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=modules)


def pefts_model(plain: PreTrainedModel, dropout: float = DROPOUT) -> peft.PeftModel:
    """Let PEFT adapt all four weights of a classifier, and train its head, as its users do."""
    config = raw_config(plain, WEIGHTS, dropout)
    config.task_type, config.modules_to_save = "SEQ_CLS", list(head_modules(plain))
    return peft.get_peft_model(plain, config)


@torch.no_grad()
def start_differences(folder: str) -> dict[str, float]:
    """Compare the logits of our LoRA as it starts with those of the encoder without it."""
    split, plain = random_rows(folder), load_model(folder, 2, seed=0).eval()
    model = lora.adapt(copy.deepcopy(plain), lora_settings(WEIGHTS), seed=0).eval()
    batch = pack(split, list(range(BATCH)), plain)
    return {"forward": largest([(classify(plain, batch), classify(model, batch))])}


@torch.no_grad()
def raw_name_differences(folder: str, weight: Weight) -> dict[str, float]:
    """Compare logits of our LoRA on one weight with PEFT's on the module of that name.

    PEFT adapts all four modules, of which only this one has a B that is not zero. Its model
    computes on padded rows as transformers does: of our table of names nothing is shared.
    """
    split, rows = random_rows(folder), list(range(BATCH))
    ours = start(folder, OURS, (weight,)).eval()
    plain = load_model(folder, 2, seed=0)
    theirs = pefts_model(plain).eval()
    ending = "." + RAW_NAMES[plain.config.model_type][weight]
    layers = [
        module
        for path, module in theirs.named_modules()
        if isinstance(module, LoraLayer) and path.endswith(ending)
    ]
    places = [part["default"].weight for m in layers for part in (m.lora_A, m.lora_B)]
    for place, parameter in zip(places, lora.adapter_state(ours).values(), strict=True):
        place.copy_(parameter)
    logits = theirs(**pad(split, rows, plain).inputs).logits
    return {"forward": largest([(classify(ours, pack(split, rows, ours)), logits)])}


def compare(
    folder: str, reference: str, targets: tuple[Weight, ...], raw_names: bool = False
) -> dict[str, float]:
    """Return the largest absolute differences of our LoRA to another, from equal A, B and data.

    They are of logits, of gradients (A, B and head), and, after `STEPS` optimiser steps with all
    dropout on, of the logits, the losses on the way, and the trained parameters.

    Args:
        reference: the other LoRA, a method of the study.
        raw_names: let PEFT find the modules by the names of `RAW_NAMES`.
    """
    split = random_rows(folder)
    ours = _outcome(start(folder, OURS, targets), OURS, split)
    theirs = _outcome(start(folder, reference, targets, raw_names), reference, split)
    return {what: largest(zip(ours[what], theirs[what], strict=True)) for what in ours}


def _outcome(model: PreTrainedModel, name: str, split: Split) -> dict[str, Sequence[Tensor]]:
    """Return what `compare` compares, of a model that the method `name` has adapted."""
    model.eval()
    parameters = load_method(METHODS[name].module).adapter_state(model) | head_parameters(model)
    trained, batch = list(parameters.values()), pack(split, list(range(BATCH)), model)
    logits = classify(model, batch)
    gradients = torch.autograd.grad(task_loss(TASK, logits, split.labels[:BATCH]), trained)
    adamw, accelerator = make_optimizer(model, HYPER), make_accelerator(HYPER)
    steps = training_steps(model, adamw, split, TASK, HYPER, 0, accelerator)
    losses = [step.loss for step in steps]
    assert len(losses) == STEPS
    model.eval()
    with torch.no_grad():
        after = classify(model, batch)
    return {
        "forward": [logits],
        "gradients": gradients,
        "losses_of_20_steps": losses,
        "forward_after_20_steps": [after],
        "parameters_after_20_steps": trained,
    }


@torch.no_grad()
def merge_differences(folder: str) -> dict[str, float]:
    """Compare merged with unmerged outputs, and weights before and after merge and unmerge."""
    split = random_rows(folder)
    model = start(folder, OURS, WEIGHTS).eval()
    batch = pack(split, list(range(BATCH)), model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unmerged = classify(model, batch)
    lora.merge(model)
    merged = classify(model, batch)
    lora.unmerge(model)
    after = model.state_dict()
    return {
        "merged_forward": largest([(unmerged, merged)]),
        "restored_weights": largest((before[name], after[name]) for name in before),
    }


@torch.no_grad()
def file_differences(folder: str) -> dict[str, float]:
    """Compare logits across files: ours saved and loaded by PEFT, PEFT's saved and loaded by us."""
    split = random_rows(folder)
    settings, method = lora_settings(WEIGHTS), load_method(OURS)
    ours = start(folder, OURS, WEIGHTS).eval()
    batch = pack(split, list(range(BATCH)), ours)
    with tempfile.TemporaryDirectory() as scratch:
        save_adapter(ours, method, settings, Path(scratch))
        plain = load_model(folder, num_outputs=2, seed=7)
        loaded = peft.PeftModel.from_pretrained(plain, scratch).eval().base_model.model
        by_peft = largest([(classify(ours, batch), classify(loaded, batch))])
    with tempfile.TemporaryDirectory() as scratch:
        plain = load_model(folder, num_outputs=2, seed=3)
        theirs = pefts_model(plain).eval()
        _draw(own for name, own in theirs.named_parameters() if "lora_" in name)
        theirs.save_pretrained(scratch)
        model = lora.adapt(load_model(folder, num_outputs=2, seed=7), settings, seed=7).eval()
        load_adapter(model, method, settings, Path(scratch))
        by_us = largest([(classify(theirs.base_model.model, batch), classify(model, batch))])
    return {"ours_loaded_by_peft": by_peft, "pefts_loaded_by_us": by_us}


def start(
    folder: str, name: str, targets: tuple[Weight, ...], raw_names: bool = False
) -> PreTrainedModel:
    """Adapt a model with A and B that depend on their order alone, B not zero."""
    method, model = load_method(METHODS[name].module), load_model(folder, 2, seed=0)
    if raw_names:
        model.requires_grad_(False)
        peft.inject_adapter_in_model(raw_config(model, targets), model)
    else:
        method.adapt(model, lora_settings(targets), seed=0)
    set_head(model, "trained")
    use_fast_dropout(model)
    _draw(method.adapter_state(model).values())
    return model


@torch.no_grad()
def _draw(parameters: Iterable[nn.Parameter]) -> None:
    for number, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(number)
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


def random_rows(folder: str) -> Split:
    """Make random tokens of two classes: `STEPS` batches with lengths from 4 to 32."""
    vocabulary, rows = model_config(folder)["vocab_size"], STEPS * BATCH
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 33, (rows,), generator=generator).tolist()
    ids = [torch.randint(SPECIAL, vocabulary, (n,), generator=generator) for n in lengths]
    labels = torch.randint(2, (rows,), generator=generator)
    return Split([str(i) for i in range(rows)], {"input_ids": ids}, labels)


def largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the largest absolute difference in pairs of tensors of equal shape."""
    return float(torch.stack([(left - right).detach().abs().max() for left, right in pairs]).max())
