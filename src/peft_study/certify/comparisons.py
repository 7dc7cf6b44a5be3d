"""A method's logits, compared: with the encoder's, packed, from files, and merged."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import adapters
import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from peft_study.certify.steps import SEED, trained_state
from peft_study.encoders.backbone import head_parameters, load_model
from peft_study.errors import StudyError, first_line
from peft_study.methods import Method, MethodRow, saved
from peft_study.methods.adapters_words import WORDS, word_of
from peft_study.methods.peft_types import PEFT_TYPES
from peft_study.parity.numbers import BATCH, largest
from peft_study.records.certificates import Merging
from peft_study.run_config import (
    AdapterHSettings,
    AdaptersSettings,
    BitFitSettings,
    FullFtSettings,
    PeftSettings,
    RunConfig,
    Settings,
)
from peft_study.training import loop
from peft_study.training.batches import Split
from peft_study.training.packing import classify, pack
from peft_study.training.padding import pad, use_own_forward, uses_own_forward

TOLERANCE = 1e-5  # of the largest logit
POWER = 100 * TOLERANCE  # what a mistake in an adapter would change, at the least
NOISE = (0.02, 0.2, 2.0)  # deviations; the first that has power
OTHER = SEED + 1  # seed of what loads files
ROWS = list(range(BATCH))


@torch.no_grad()
def logits_of(model: PreTrainedModel, split: Split) -> Tensor:
    """Return the logits (BATCH, outputs) of the first rows, in evaluation."""
    model.eval()
    return classify(model, pack(split, ROWS, model)).float()


def relative(logits: Tensor, reference: Tensor) -> float:
    """Return the largest difference as a fraction of the reference's largest logit, two digits."""
    return float(f"{largest([(logits, reference)]) / float(reference.abs().max()):.1e}")


def check_start(settings: Settings, row: MethodRow, found: float) -> None:
    """Check how far a method starts from the encoder, if it is known to start as that.

    Raises StudyError: it does not. Where a configuration says how it starts, nothing is known.
    """
    match settings:
        case PeftSettings(config=config):
            said = any(key.startswith("init_") and key != "init_r" for key in config)
            known = PEFT_TYPES[config["peft_type"]].identity and not said
        case AdaptersSettings(config=words):
            parts = [WORDS[word_of(part)] for part in words.split("|")]
            known = all(part.identity for part in parts) and "init" not in words
        case _:
            known = row.identity
    if (known and not found <= TOLERANCE) or not found < float("inf"):
        differ = f"start: logits differ from the encoder's by {found:.1e} of the largest"
        raise StudyError(f"{differ}, though it starts as the encoder; mend how it is drawn")


@torch.no_grad()
def perturb(method: Method, model: PreTrainedModel, split: Split) -> float:
    """Add noise to all that is trained of an adapter, and return how far the logits moved.

    Raises StudyError: hardly, so that no comparison of logits could tell a mistake.
    """
    before, moved = logits_of(model, split), 0.0
    for deviation in NOISE:
        for number, parameter in enumerate(trained_state(method, model).values()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(deviation * torch.randn(parameter.shape, generator=generator))
        if (moved := relative(logits_of(model, split), before)) >= POWER:
            return moved
    found = f"power: noise on all trained tensors moves the logits by {moved:.1e} of the largest"
    raise StudyError(f"{found}, less than {POWER:.0e}: the adapter does next to nothing")


@torch.no_grad()
def packed_difference(model: PreTrainedModel, split: Split) -> float:
    """Compare packed with padded rows; of a model's own forward, padded rows with each alone.

    Raises StudyError: they differ.
    """
    found = logits_of(model, split)
    if own := uses_own_forward(model):
        other = torch.cat([classify(model, pack(split, [row], model)) for row in ROWS])
    else:
        other = model(**pad(split, ROWS, model).inputs).logits
    what = "padded rows and each alone" if own else "packed and padded rows"
    mend = "the packed step does not reach all that the method adds: use the model's own forward"
    mend = "a text's score hangs on others: use another configuration" if own else mend
    return within("packed", what, relative(found, other), mend)


def file_difference(
    config: RunConfig, method: Method, model: PreTrainedModel, split: Split, folder: Path
) -> float:
    """Save an adapter to `folder` and load it into a model of another seed.

    Raises StudyError: it cannot be loaded, or gives other logits.
    """
    saved.save_adapter(model, method, config.settings, folder)
    settings = saved.drawn_as(config.settings, folder)
    _, loaded = loop.build(replace(config, settings=settings), OTHER)
    saved.load_adapter(loaded, method, settings, folder)
    found = relative(logits_of(loaded, split), logits_of(model, split))
    mend = "something that it draws or trains is not saved: let it be part of the adapter"
    return within("files", "saved and loaded", found, mend)


def library_difference(
    config: RunConfig, row: MethodRow, model: PreTrainedModel, split: Split, folder: Path
) -> tuple[str, float] | None:
    """Load an adapter by its library's own loader; return the library and the difference.

    PEFT reads what `file_difference` saved in `folder`. None of methods that no library loads.

    Raises StudyError: the loader refuses, or gives other logits.
    """
    adapts = isinstance(config.settings, (AdapterHSettings, AdaptersSettings))
    library = "PEFT" if row.exported else "adapters" if adapts else None
    if library is None:
        return None
    plain = load_model(config.encoder.name, config.definition.num_outputs, OTHER)
    try:
        loaded = _by_peft(plain, folder) if row.exported else _by_adapters(model, plain, folder)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        refused = f"files: the own loader of {library} refuses it: {first_line(e)}"
        raise StudyError(f"{refused}; use another configuration") from None
    found = relative(logits_of(loaded, split), logits_of(model, split))
    mend = f"{library} reads the files otherwise: use another configuration"
    return library, within("files", f"saved and loaded by {library}", found, mend)


def _by_peft(plain: PreTrainedModel, folder: Path) -> Any:
    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # FRoD draws progress bars
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(plain, str(folder)).base_model.model


@torch.no_grad()
def _by_adapters(model: Any, plain: Any, folder: Path) -> Any:
    (name,) = model.adapters_config.adapters
    model.save_adapter(str(folder), name, with_head=False)
    adapters.init(plain)
    plain.load_adapter(str(folder), with_head=False, set_active=True)
    for own, other in zip(_head(plain), _head(model), strict=True):
        own.copy_(other)
    if uses_own_forward(model):
        use_own_forward(plain)
    return plain


def _head(model: PreTrainedModel) -> list[Tensor]:
    return list(head_parameters(model).values())


@torch.no_grad()
def merging(
    settings: Settings, row: MethodRow, method: Method, model: PreTrainedModel, split: Split
) -> Merging | str:
    """Compare merged with unmerged logits, in float32 and bfloat16; or say why it does not merge.

    Raises StudyError: they differ in float32, the logits before do not come back, or the library
    refuses.
    """
    if isinstance(settings, (FullFtSettings, BitFitSettings)):
        return "it trains the encoder's own weights"
    kind = settings.config["peft_type"] if isinstance(settings, PeftSettings) else ""
    if not (PEFT_TYPES[kind].merges if kind else row.merges):
        return "its update does not merge"
    unmerged, lower = logits_of(model, split), _bfloat16(model, split)
    try:
        with _merged(method, model):
            merged, merged_lower = logits_of(model, split), _bfloat16(model, split)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        refused = f"merging: PEFT refuses to merge it: {first_line(e)}"
        raise StudyError(f"{refused}; use another configuration") from None
    mend = "use another configuration, or let its table say that it does not merge"
    float32 = within("merging", "merged and unmerged", relative(merged, unmerged), mend)
    back = relative(logits_of(model, split), unmerged)
    restored = within("merging", "unmerged again and before", back, mend)
    return Merging(float32, relative(merged_lower, lower), restored)


@contextmanager
def _merged(method: Method, model: PreTrainedModel) -> Iterator[None]:
    if own := getattr(method, "merged", None):
        with own(model):
            yield
        return
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.merge()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it may be inaccurate, which is measured here
        for layer in layers:
            layer.unmerge()


def _bfloat16(model: PreTrainedModel, split: Split) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return logits_of(model, split)


def within(line: str, what: str, found: float, mend: str) -> float:
    """Return a difference. Raises StudyError, of this line: it is more than the tolerance."""
    if not found <= TOLERANCE:
        raise StudyError(f"{line}: {what} differ by {found:.1e} of the largest logit; {mend}")
    return found
