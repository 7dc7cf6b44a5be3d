"""Is our LoRA the LoRA of others? Counted on the papers' models, computed on a real encoder.

The counts need configurations only: the models are built without weights. The numbers start all
implementations from equal A and B and compare them in float32 on one thread.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from peft_study.data.tasks import Task
from peft_study.encoders.architectures import WEIGHTS
from peft_study.encoders.backbone import head_parameters, load_model, set_head
from peft_study.encoders.pretrained import model_config
from peft_study.errors import StudyError
from peft_study.methods import count_trainable, load_adapter, load_method, lora, save_adapter
from peft_study.study import AdapterHParams, FullFtParams, LoraParams
from peft_study.training.batches import Split
from peft_study.training.loop import (
    make_accelerator,
    make_optimizer,
    task_loss,
    training_steps,
)
from peft_study.training.packing import classify, pack

TOLERANCE = 1e-5
DEVICE = {"device": "cpu", "precision": "float32"}
LORA_METHODS = ("lora", "peft_lora", "loralib_lora")
RANKS = (1, 2, 3, 4, 8, 16, 64)
BOTTLENECKS = (3, 8, 16, 64)
SUBSETS = [list(s) for n in range(1, 5) for s in combinations(WEIGHTS, n)]
STEPS = 20
BATCH = 8

# The published models by their configurations, with a head of two classes.
_ROBERTA: dict[str, Any] = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
MODELS: dict[str, PretrainedConfig] = {
    "bert-base": BertConfig(),
    "roberta-base": RobertaConfig(**_ROBERTA),
    "roberta-large": RobertaConfig(
        **_ROBERTA,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
    "deberta-v2-xlarge": DebertaV2Config(
        hidden_size=1536,
        num_hidden_layers=24,
        num_attention_heads=24,
        intermediate_size=6144,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        conv_kernel_size=3,
        conv_act="gelu",
    ),
}


def parity(model: str) -> dict[str, Any]:
    """Compare the implementations; `model` is the folder of the real encoder for the numbers.

    Returns:
        `counts`: trainable parameters of adapter and head by model and setting, on which the
        implementations and the closed form agree; `differences`: the largest absolute ones seen.

    Raises:
        StudyError: two counts differ, or a difference exceeds `TOLERANCE`.
    """
    make_accelerator(DEVICE)
    differences = {
        f"{reference} {'+'.join(targets)}": compare(model, reference, targets)
        for reference in LORA_METHODS[1:]
        for targets in (["query", "value"], list(WEIGHTS))
    }
    differences |= {"merge": merge_differences(model), "files": file_differences(model)}
    for comparison, values in differences.items():
        for name, value in values.items():
            if not value <= TOLERANCE:
                raise StudyError(f"parity broken: {comparison} {name} differs by {value}")
    return {
        "counts": {name: dict(counts(config)) for name, config in MODELS.items()},
        "differences": differences,
        "tolerance": TOLERANCE,
    }


def lora_params(r: int, targets: list[str]) -> LoraParams:
    """Return LoRA parameters with the papers' alpha of 16 and no dropout."""
    return LoraParams.model_validate(
        {"r": r, "alpha": 16.0, "dropout": 0.0, "targets": targets, "learning_rate": 1e-3}
    )


def counts(config: PretrainedConfig) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield, for each setting, the counts on which all implementations and closed forms agree.

    Closed forms, for width d and L layers: LoRA L * |targets| * 2 d r (Hu et al. 2021, section
    4.2), AdapterH L * 2 * (2 d m + m + d) for bottleneck m (Houlsby et al. 2019, section 2.1,
    without the LayerNorms, which the `adapters` library leaves frozen).

    Raises:
        StudyError: an implementation counts otherwise.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    plain = build_without_weights(config)
    by_rank = [(["query", "value"], r) for r in RANKS]
    for targets, r in chain(by_rank, ((subset, 8) for subset in SUBSETS)):
        name = f"lora r={r} {'+'.join(targets)}"
        expected = layers * len(targets) * 2 * width * r
        yield name, _agreed(plain, name, LORA_METHODS, lora_params(r, targets), expected)
    for bottleneck in BOTTLENECKS:
        name = f"adapter_h bottleneck={bottleneck}"
        params = AdapterHParams(bottleneck=bottleneck, activation="gelu", learning_rate=1e-3)
        expected = layers * 2 * (2 * width * bottleneck + bottleneck + width)
        yield name, _agreed(plain, name, ("adapter_h",), params, expected)
    expected = ENCODER_PARAMETERS[config.model_type](config)
    full = FullFtParams(learning_rate=1e-3, save_weights=False)
    yield "full_ft", _agreed(plain, "full_ft", ("full_ft",), full, expected)


def _bert_parameters(config: Any) -> int:
    d, f = config.hidden_size, config.intermediate_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * f + f + d
    layer = attention + feed_forward + 2 * 2 * d  # two LayerNorms
    return rows * d + 2 * d + config.num_hidden_layers * layer


def _deberta_parameters(config: Any) -> int:
    # No absolute positions and no token types; instead one table of relative positions with its
    # LayerNorm, whose projections are the queries' and keys' own, and one convolution.
    d, kernel = config.hidden_size, config.conv_kernel_size
    relative = 2 * config.position_buckets * d + 2 * d
    convolution = kernel * d * d + d + 2 * d
    without = {"max_position_embeddings": 0, "type_vocab_size": 0}
    return _bert_parameters(type(config)(**config.to_dict() | without)) + relative + convolution


# Closed forms of the encoders' sizes, without heads; BERT's includes its pretrained pooler.
ENCODER_PARAMETERS: dict[str, Callable[[Any], int]] = {
    "bert": lambda c: _bert_parameters(c) + c.hidden_size**2 + c.hidden_size,
    "roberta": _bert_parameters,
    "deberta-v2": _deberta_parameters,
}


def build_without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """Build a classifier on the meta device: shapes, no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


def _agreed(
    plain: PreTrainedModel, name: str, methods: tuple[str, ...], params: Any, expected: int
) -> dict[str, int]:
    found = {}
    for method_name in methods:
        method = load_method(method_name)
        with torch.device("meta"):
            model = method.adapt(copy.deepcopy(plain), params, seed=0)
        set_head(model, "trained")
        found[method_name] = count_trainable(model, method)
        if found[method_name]["adapter"] != expected or found[method_name] != found[methods[0]]:
            raise StudyError(
                f"parity broken: {plain.config.model_type} {name}: {found}, closed form {expected}"
            )
    return found[methods[0]]


def compare(model_name: str, reference: str, targets: list[str]) -> dict[str, float]:
    """Compare our LoRA with a reference from equal A, B and data.

    Returns:
        Largest absolute differences: of logits, of gradients (A, B and head), and, after `STEPS`
        optimiser steps with the encoder's dropout on, of the logits, the losses on the way, and
        the trained parameters.
    """
    task, split = _data(model_name)
    ours, theirs = (_start(model_name, name, targets) for name in ("lora", reference))
    outcomes = []
    for name, model in (("lora", ours), (reference, theirs)):
        model.eval()
        parameters = load_method(name).adapter_state(model) | head_parameters(model)
        logits = classify(model, pack(split, list(range(BATCH)), model))
        loss = task_loss(task, logits, split.labels[:BATCH])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        hyper: dict[str, Any] = {
            "batch_size": BATCH,
            "epochs": 1,
            "weight_decay": 0.01,
            "learning_rate": 1e-3,
        }
        hyper |= {"warmup_ratio": 0.06, "max_grad_norm": 1.0, "adam_beta2": 0.999}
        hyper |= {"gradient_accumulation_steps": 1} | DEVICE
        adamw, accelerator = make_optimizer(model, hyper), make_accelerator(hyper)
        steps = training_steps(model, adamw, split, task, hyper, 0, accelerator)
        losses = [step.loss for step in steps]
        assert len(losses) == STEPS
        model.eval()
        with torch.no_grad():
            after = classify(model, pack(split, list(range(BATCH)), model))
        outcomes.append(
            {
                "forward": [logits],
                "gradients": gradients,
                "losses_of_20_steps": losses,
                "forward_after_20_steps": [after],
                "parameters_after_20_steps": list(parameters.values()),
            }
        )
    return {
        name: _largest(zip(outcomes[0][name], outcomes[1][name], strict=True))
        for name in outcomes[0]
    }


@torch.no_grad()
def merge_differences(model_name: str) -> dict[str, float]:
    """Compare merged with unmerged outputs, and weights before and after merge and unmerge."""
    _, split = _data(model_name)
    model = _start(model_name, "lora", list(WEIGHTS)).eval()
    batch = pack(split, list(range(BATCH)), model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unmerged = classify(model, batch)
    lora.merge(model)
    merged = classify(model, batch)
    lora.unmerge(model)
    after = model.state_dict()
    return {
        "merged_forward": _largest([(unmerged, merged)]),
        "restored_weights": _largest((before[name], after[name]) for name in before),
    }


@torch.no_grad()
def file_differences(model_name: str) -> dict[str, float]:
    """Compare logits across files: ours saved and loaded by PEFT, PEFT's saved and loaded by us."""
    _, split = _data(model_name)
    params = lora_params(8, ["query", "value"])
    ours = _start(model_name, "lora", list(params.targets)).eval()
    batch = pack(split, list(range(BATCH)), ours)
    with tempfile.TemporaryDirectory() as scratch:
        save_adapter(ours, load_method("lora"), params, Path(scratch))
        plain = load_model(model_name, num_outputs=2, seed=7)
        loaded = peft.PeftModel.from_pretrained(plain, scratch).eval()
        by_peft = _largest([(classify(ours, batch), classify(loaded.base_model.model, batch))])
    with tempfile.TemporaryDirectory() as scratch:
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]
        )
        theirs = peft.get_peft_model(load_model(model_name, num_outputs=2, seed=3), config).eval()
        for number, (name, parameter) in enumerate(theirs.named_parameters()):
            if "lora_" in name:
                generator = torch.Generator().manual_seed(number)
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        theirs.save_pretrained(scratch)
        model = lora.adapt(load_model(model_name, num_outputs=2, seed=7), params, seed=7).eval()
        load_adapter(model, load_method("lora"), params, Path(scratch))
        by_us = _largest([(classify(theirs.base_model.model, batch), classify(model, batch))])
    return {"ours_loaded_by_peft": by_peft, "pefts_loaded_by_us": by_us}


def _start(model_name: str, method_name: str, targets: list[str]) -> PreTrainedModel:
    """Adapt a model with A and B that depend on their names alone, B not zero."""
    method = load_method(method_name)
    model = method.adapt(load_model(model_name, 2, seed=0), lora_params(8, targets), seed=0)
    set_head(model, "trained")
    with torch.no_grad():
        for number, parameter in enumerate(method.adapter_state(model).values()):
            generator = torch.Generator().manual_seed(number)
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def _data(model_name: str) -> tuple[Task, Split]:
    """Make a two-class task of random tokens: `STEPS` batches with lengths from 4 to 32."""
    vocabulary = model_config(model_name)["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    rows = STEPS * BATCH
    lengths = torch.randint(4, 33, (rows,), generator=generator).tolist()
    ids = [torch.randint(vocabulary, (n,), generator=generator) for n in lengths]
    labels = torch.randint(2, (rows,), generator=generator)
    task = Task(texts=("text",), labels=("no", "yes"), metrics=("accuracy",))
    return task, Split([str(i) for i in range(rows)], {"input_ids": ids}, labels)


def _largest(pairs: Any) -> float:
    differences: list[Tensor] = [(left - right).detach().abs().max() for left, right in pairs]
    return float(torch.stack(differences).max())
