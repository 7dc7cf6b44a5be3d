"""The certificate that our LoRA is the LoRA of others: counted, computed, trained."""

from collections.abc import Iterator
from itertools import chain, combinations

import torch

from peft_study.encoders.architectures import WEIGHTS
from peft_study.encoders.backbone import load_model
from peft_study.errors import StudyError
from peft_study.methods import lora
from peft_study.parity.counts import MODELS, counts, settings_counted
from peft_study.parity.numbers import (
    ALPHA,
    BATCH,
    DROPOUT,
    HYPER,
    OURS,
    PEFTS,
    RANK,
    differences,
    largest,
    lora_settings,
    random_rows,
    start,
)
from peft_study.parity.whole_run import check_decay, whole_run_differences
from peft_study.records.costs import Parity, ParityDifference
from peft_study.run_config import PEFT_PREFIX
from peft_study.training.loop import make_accelerator
from peft_study.training.packing import classify, pack

TOLERANCE = 1e-5
DRAWS = 1000  # of dropout in a layer, at least


def parity(folder: str, model: str) -> Parity:
    """Compare the implementations, on the encoder in `folder` for the numbers.

    Raises StudyError: two counts differ, a difference exceeds `TOLERANCE`, or a check fails.
    """
    checked, compared = certify(folder)
    return Parity(
        model=model,
        tolerance=TOLERANCE,
        settings={name: recipe for name, recipe, _ in settings_counted()},
        counts={name: dict(counts(config)) for name, config in MODELS.items()},
        differences=compared,
        checked=checked,
    )


def certify(folder: str) -> tuple[tuple[str, ...], tuple[ParityDifference, ...]]:
    """Return what was checked and what was compared on the encoder in `folder`.

    Raises StudyError, at the first of them that does not hold.
    """
    make_accelerator(HYPER)
    checks = check_start, check_dropout, check_decay, measure_power
    checked = tuple(check(folder) for check in checks)
    return checked, tuple(_within(found) for found in chain(differences(folder), _run(folder)))


def _run(folder: str) -> Iterator[ParityDifference]:
    what, found = "a whole run through Hugging Face's Trainer", whole_run_differences(folder)
    yield ParityDifference(PEFTS, WEIGHTS, what, found, RANK, ALPHA, dropout=0.0)


def _within(found: ParityDifference) -> ParityDifference:
    what = " ".join(filter(None, (found.method, *found.weights, found.what)))
    for name, value in found.largest.items():
        if not value <= TOLERANCE:
            raise StudyError(f"parity broken: {what}: {name} differs by {value:.1e}")
    return found


def check_start(folder: str) -> str:
    """Check how A (r, in) and B (out, r) start, for weights (out, in): B is zero, A is not.

    Source: Hu et al. 2021, section 4.1.

    Raises StudyError: one of them has another shape or start.
    """
    plain = load_model(folder, 2, seed=0)
    layers = dict(plain.named_modules())
    state = lora.adapter_state(lora.adapt(plain, lora_settings(WEIGHTS), seed=0))
    for name, parameter in state.items():
        path, _, matrix = name.removeprefix(PEFT_PREFIX).removesuffix(".weight").rpartition(".")
        out_features, in_features = layers[path].weight.shape
        is_a, shape = matrix == "lora_A", tuple(parameter.shape)
        if shape != (wanted := (RANK, in_features) if is_a else (out_features, RANK)):
            raise StudyError(f"parity broken: {matrix} of {path} is {shape}, not {wanted}")
        if bool(parameter.any()) != is_a:
            found = "is zero" if is_a else "is not zero"
            raise StudyError(f"parity broken: {matrix} of {path} {found} at the start")
    return "Start: B is zero and A is not, so that LoRA starts as the encoder it adapts."


@torch.no_grad()
def check_dropout(folder: str) -> str:
    """Check by its effect that LoRA's dropout drops at its rate in training, never in evaluation.

    A layer is shown the unit vectors; an update that stays zero tells that its input was dropped.

    Raises StudyError: the share dropped is more than four standard errors from the rate, something
    is dropped in evaluation, or what is kept is not scaled by 1 / (1 - rate).
    """
    model = start(folder, OURS, WEIGHTS)
    torch.manual_seed(0)
    dropped, draws, gap = 0, 0, 0.0
    for path, layer in model.named_modules():
        if not isinstance(layer, lora.LoRALinear):
            continue
        units = torch.eye(layer.in_features).repeat(-(-DRAWS // layer.in_features), 1)
        without = torch.nn.functional.linear(units, layer.weight, layer.bias)
        rested, trained = layer.eval()(units) - without, layer.train()(units) - without
        zero = (trained == 0).all(-1)
        if (rested == 0).all(-1).any():
            raise StudyError(f"parity broken: dropout of {path} drops in evaluation")
        dropped, draws = dropped + int(zero.sum()), draws + len(zero)
        gap = max(gap, largest([(trained[~zero], rested[~zero] / (1 - DROPOUT))]))
    rate, error = dropped / draws, (DROPOUT * (1 - DROPOUT) / draws) ** 0.5
    if not abs(rate - DROPOUT) <= 4 * error:
        raise StudyError(f"parity broken: dropout drops {rate:.3f} in training, not {DROPOUT}")
    if not gap <= 1e-4:  # our dropout rounds the rate to 16 bits
        raise StudyError(f"parity broken: what dropout keeps differs by {gap:.1e}")
    return f"Dropout: {100 * rate:.1f}% dropped in training, nothing in evaluation."


@torch.no_grad()
def measure_power(folder: str) -> str:
    """Say how far apart logits are with one update on one or on another weight.

    Were it below the tolerance, this encoder could not tell that a name is wrong.
    """
    split, found = random_rows(folder), []
    for weight in WEIGHTS:
        model = start(folder, OURS, (weight,)).eval()
        found.append(classify(model, pack(split, list(range(BATCH)), model)))
    least = min(largest([pair]) for pair in combinations(found, 2))
    return f"Names: on another weight the same update would change logits by {least:.1e} or more."
