"""Is our LoRA the LoRA of others? Counted on the papers' models, computed on a real encoder.

The counts need configurations only: the models are built without weights. The numbers start all
implementations from equal A and B and compare them in float32 on one thread.
"""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import peft
import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import WEIGHTS, Weight, architecture
from peft_study.encoders.backbone import head_parameters, load_model, set_head
from peft_study.encoders.pretrained import model_config
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.methods import METHODS, load_method, lora
from peft_study.methods.saved import count_trainable, load_adapter, save_adapter
from peft_study.records.costs import Parity, ParityDifference, Recipe
from peft_study.records.scores import Counts
from peft_study.run_config import (
    AdapterHSettings,
    FullFtSettings,
    Hyperparameters,
    LoraSettings,
    Settings,
)
from peft_study.training.batches import Split
from peft_study.training.loop import make_accelerator, make_optimizer, task_loss, training_steps
from peft_study.training.packing import classify, pack

TOLERANCE = 1e-5
OURS = "lora"
OTHERS = [name for name, row in METHODS.items() if row.family == "lora" and name != OURS]
RANKS = (1, 2, 3, 4, 8, 16, 64)
BOTTLENECKS = (3, 8, 16, 64)
SUBSETS = [subset for n in range(1, 5) for subset in combinations(WEIGHTS, n)]
QUERY_VALUE: tuple[Weight, ...] = ("query", "value")
STEPS = 20
BATCH = 8
TASK = TASKS["movie_polarity"]  # for its two classes; the tokens are random
HYPER = Hyperparameters(
    epochs=1,
    batch_size=BATCH,
    gradient_accumulation_steps=1,
    learning_rate=1e-3,
    warmup_ratio=0.06,
    weight_decay=0.01,
    adam_beta2=0.999,
    max_grad_norm=1.0,
    evaluations_per_epoch=1,
    head="trained",
    report="last",
    device="cpu",
    precision="float32",
)

# The published models by their configurations, with a head of two classes.
MODELS = {
    name: transformers.AutoConfig.for_model(**config)
    for name, config in read_json(Path(__file__).with_name("published_models.json")).items()
}


def parity(folder: str, model: str) -> Parity:
    """Compare the implementations, on the encoder in `folder` for the numbers.

    Raises StudyError: two counts differ, or a difference exceeds `TOLERANCE`.
    """
    make_accelerator(HYPER)
    compared = [
        ParityDifference(reference, targets, "", compare(folder, reference, targets))
        for reference in OTHERS
        for targets in (QUERY_VALUE, WEIGHTS)
    ]
    compared.append(ParityDifference(None, (), "merge", merge_differences(folder)))
    compared.append(ParityDifference(None, (), "files", file_differences(folder)))
    for found in compared:
        what = " ".join([found.method or found.what, *found.weights])
        for name, value in found.largest.items():
            if not value <= TOLERANCE:
                raise StudyError(f"parity broken: {what} {name} differs by {value}")
    return Parity(
        model=model,
        tolerance=TOLERANCE,
        settings={name: recipe for name, recipe, _ in settings_counted()},
        counts={name: dict(counts(config)) for name, config in MODELS.items()},
        differences=tuple(compared),
    )


def lora_settings(r: int, targets: tuple[Weight, ...]) -> LoraSettings:
    """Return LoRA's settings with the papers' alpha of 16 and no dropout."""
    return LoraSettings(r, 16.0, 0.0, targets)


def settings_counted() -> Iterator[tuple[str, Recipe, Settings]]:
    """Yield every setting of which parameters are counted: its name, what it is, and itself."""
    for targets, r in (*((QUERY_VALUE, r) for r in RANKS), *((s, 8) for s in SUBSETS)):
        name = f"lora r={r} {'+'.join(targets)}"
        yield name, Recipe(OURS, r, targets), lora_settings(r, targets)
    for units in BOTTLENECKS:
        name = f"adapter_h bottleneck={units}"
        yield name, Recipe("adapter_h", bottleneck=units), AdapterHSettings(units, "gelu")
    yield "full_ft", Recipe("full_ft"), FullFtSettings()


def counts(config: PretrainedConfig) -> Iterator[tuple[str, Counts]]:
    """Yield, for each setting, the counts on which all implementations and closed forms agree.

    Closed forms, for width d and L layers: LoRA L * |targets| * 2 d r (Hu et al. 2021, section
    4.2), AdapterH L * 2 * (2 d m + m + d) for bottleneck m (Houlsby et al. 2019, section 2.1,
    without the LayerNorms, which the `adapters` library leaves frozen).

    Raises StudyError: an implementation counts otherwise.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    with torch.device("meta"):  # shapes, no memory
        plain = transformers.AutoModelForSequenceClassification.from_config(config)
    for name, recipe, settings in settings_counted():
        methods = [recipe.method or OURS]
        if isinstance(settings, LoraSettings):
            methods += OTHERS
            expected = layers * len(settings.targets) * 2 * width * settings.r
        elif isinstance(settings, AdapterHSettings):
            units = settings.bottleneck
            expected = layers * 2 * (2 * width * units + units + width)
        else:
            expected = encoder_parameters(config)
        found = {method: _count(plain, method, settings) for method in methods}
        first = found[methods[0]]
        if first["adapter"] != expected or any(count != first for count in found.values()):
            where = f"{config.model_type} {name}"
            raise StudyError(f"parity broken: {where}: {found}, closed form {expected}")
        yield name, Counts(**first)


def encoder_parameters(config: PretrainedConfig) -> int:
    """Return how many parameters an encoder has by its configuration, without heads.

    A pooler counts where pre-training provides it. DeBERTa-v2 has no absolute positions; instead
    one table of relative positions with its LayerNorm, whose projections are the queries' and
    keys' own, and one convolution.
    """
    d, f, names = config.hidden_size, config.intermediate_size, architecture(config.model_type)
    attention, feed_forward, layer_norm = 4 * (d * d + d), 2 * d * f + f + d, 2 * d
    total = config.num_hidden_layers * (attention + feed_forward + 2 * layer_norm)
    total += config.vocab_size * d + layer_norm
    if getattr(config, "relative_attention", False):
        total += 2 * config.position_buckets * d + layer_norm
    else:
        total += (config.max_position_embeddings + config.type_vocab_size) * d
    if kernel := getattr(config, "conv_kernel_size", 0):
        total += kernel * d * d + d + layer_norm
    if names.pooler and names.pooler.startswith(f"{names.base}."):
        total += d * d + d
    return total


def _count(plain: PreTrainedModel, name: str, settings: Settings) -> dict[str, int]:
    method = load_method(METHODS[name].module)
    with torch.device("meta"):
        model = method.adapt(copy.deepcopy(plain), settings, seed=0)
    set_head(model, "trained")
    return count_trainable(model, method)


def compare(model_name: str, reference: str, targets: tuple[Weight, ...]) -> dict[str, float]:
    """Return the largest absolute differences of our LoRA to another, from equal A, B and data.

    They are of logits, of gradients (A, B and head), and, after `STEPS` optimiser steps with the
    encoder's dropout on, of the logits, the losses on the way, and the trained parameters.
    """
    split = _data(model_name)
    ours, theirs = (_outcome(_start(model_name, n, targets), n, split) for n in (OURS, reference))
    return {what: _largest(zip(ours[what], theirs[what], strict=True)) for what in ours}


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
def merge_differences(model_name: str) -> dict[str, float]:
    """Compare merged with unmerged outputs, and weights before and after merge and unmerge."""
    split = _data(model_name)
    model = _start(model_name, OURS, WEIGHTS).eval()
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
    split = _data(model_name)
    settings, method = lora_settings(8, QUERY_VALUE), load_method(OURS)
    ours = _start(model_name, OURS, QUERY_VALUE).eval()
    batch = pack(split, list(range(BATCH)), ours)
    with tempfile.TemporaryDirectory() as scratch:
        save_adapter(ours, method, settings, Path(scratch))
        plain = load_model(model_name, num_outputs=2, seed=7)
        loaded = peft.PeftModel.from_pretrained(plain, scratch).eval().base_model.model
        by_peft = _largest([(classify(ours, batch), classify(loaded, batch))])
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
        model = lora.adapt(load_model(model_name, num_outputs=2, seed=7), settings, seed=7).eval()
        load_adapter(model, method, settings, Path(scratch))
        by_us = _largest([(classify(theirs.base_model.model, batch), classify(model, batch))])
    return {"ours_loaded_by_peft": by_peft, "pefts_loaded_by_us": by_us}


def _start(model_name: str, method_name: str, targets: tuple[Weight, ...]) -> PreTrainedModel:
    """Adapt a model with A and B that depend on their names alone, B not zero."""
    method = load_method(METHODS[method_name].module)
    model = method.adapt(load_model(model_name, 2, seed=0), lora_settings(8, targets), seed=0)
    set_head(model, "trained")
    with torch.no_grad():
        for number, parameter in enumerate(method.adapter_state(model).values()):
            generator = torch.Generator().manual_seed(number)
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def _data(model_name: str) -> Split:
    """Make random tokens of two classes: `STEPS` batches with lengths from 4 to 32."""
    vocabulary, rows = model_config(model_name)["vocab_size"], STEPS * BATCH
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 33, (rows,), generator=generator).tolist()
    ids = [torch.randint(vocabulary, (n,), generator=generator) for n in lengths]
    labels = torch.randint(2, (rows,), generator=generator)
    return Split([str(i) for i in range(rows)], {"input_ids": ids}, labels)


def _largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    return float(torch.stack([(left - right).detach().abs().max() for left, right in pairs]).max())
