"""The certificate of a method: that it is what it says, before anything is trained with it.

Everything is computed in float32 on one thread, from random tokens, on the study's encoder.
"""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import datasets
from transformers import PreTrainedModel

from peft_study.certify import comparisons, steps
from peft_study.certify.closed_forms import closed_form
from peft_study.encoders.backbone import load_model
from peft_study.encoders.pretrained import model_folder
from peft_study.errors import StudyError
from peft_study.methods import KINDS, METHODS, Method, saved, training_hooks
from peft_study.parity.numbers import TASK, random_rows
from peft_study.records.certificates import Certificate, Certificates, Merging
from peft_study.records.scores import Counts
from peft_study.run_config import Encoder, PeftSettings, RunConfig, Settings
from peft_study.stage_configs import CertifiedMethod, CertifyConfig, is_adalora
from peft_study.training import loop
from peft_study.training.batches import Split
from peft_study.training.padding import uses_own_forward

ROWS = {row.module: row for row in (*METHODS.values(), *KINDS.values())}
# So that AdaLoRA's budget falls within the few steps.
AT_ONCE = {"tinit": 0, "tfinal": 0, "deltaT": 1}


def certificates(config: CertifyConfig) -> Certificates:
    """Certify every method of a study on its encoder.

    Raises StudyError, with the method's name and the line that failed, at the first.
    """
    loop.make_accelerator(steps.SHORT)
    found = []
    for name, method in config.methods.items():
        try:
            found.append(certify(name, method, config.encoder))
        except StudyError as error:
            raise StudyError(f"certificate of {name}: {error}") from None
    return Certificates(config.encoder.name, comparisons.TOLERANCE, steps.STEPS, tuple(found))


def certify(name: str, certified: CertifiedMethod, encoder: Encoder) -> Certificate:
    """Certify a method.

    Raises StudyError, beginning with the line that failed: see `docs/methods.md`.
    """
    folder = str(model_folder(encoder.name, encoder.revision))
    settings, row, split = _at_once(certified.settings), ROWS[certified.module], random_rows(folder)
    config = RunConfig(
        method=name,
        module=certified.module,
        task="random tokens",
        definition=TASK,
        max_length=32,  # of the random rows
        encoder=replace(encoder, name=folder, revision=None),
        settings=settings,
        train=steps.SHORT,
        save_weights=True,
        packages={},
    )
    check_lengths(config, certified)
    plain = load_model(folder, TASK.num_outputs, steps.SEED)
    expected, reference = closed_form(settings, plain), comparisons.logits_of(plain, split)
    del plain
    method, model = loop.build(config, steps.SEED)
    counts = count(method, model, expected)
    start = comparisons.relative(comparisons.logits_of(model, split), reference)
    comparisons.check_start(settings, row, start)
    seen = steps.train(config, method, model, split)
    ranks = steps.check(settings, model, seen)
    check_repeated(config, split, steps.outcome(method, model))
    power = comparisons.perturb(method, model, split)
    packed = comparisons.packed_difference(model, split)
    with tempfile.TemporaryDirectory() as scratch:
        about = model, split, Path(scratch)
        files = comparisons.file_difference(config, method, *about)
        library = comparisons.library_difference(config, row, *about)
    merging = comparisons.merging(settings, row, method, model, split)
    return Certificate(
        method=name,
        trainable=counts,
        closed_form=expected,
        start=start,
        tensors=len(steps.trained_state(method, model)),
        frozen=seen.frozen,
        hooks=tuple(sorted(seen.hooks)),
        ranks=ranks,
        power=power,
        own_forward=uses_own_forward(model),
        packed=packed,
        files=files,
        library=library[0] if library else None,
        library_files=library[1] if library else None,
        merging=merging if isinstance(merging, Merging) else None,
        unmerged=merging if isinstance(merging, str) else None,
    )


def count(method: Method, model: PreTrainedModel, expected: int | None) -> Counts:
    """Count what is trained.

    Raises StudyError: that is nothing, or more than the adapter and the head, or the adapter is
    not what the closed form says.
    """
    adapter = sum(p.numel() for p in steps.trained_state(method, model).values())
    try:
        counts = Counts(**saved.count_trainable(model, method))
    except RuntimeError as error:
        raise StudyError(f"parameters: {error}; what is trained must be saved") from None
    if not adapter:
        raise StudyError("parameters: the adapter has none to train; name targets that exist")
    if expected not in (None, adapter):
        found = f"parameters: {adapter:,} are trained, but the closed form says {expected:,}"
        raise StudyError(f"{found}; its targets or its ranks are others than it says")
    return counts


def check_repeated(config: RunConfig, split: Split, first: dict[str, str]) -> None:
    """Build and train a method again from the same seed, of which `first` came out before.

    Raises StudyError: something else comes out.
    """
    method, model = loop.build(config, steps.SEED)
    steps.train(config, method, model, split)
    second = steps.outcome(method, model)
    for name in sorted(first | second):
        if first.get(name) != second.get(name):
            found = f"repeated: '{name}' differs between two runs of seed {steps.SEED}"
            raise StudyError(f"{found}; let all that is drawn follow the seed")


def check_lengths(config: RunConfig, certified: CertifiedMethod) -> None:
    """Let a method's hooks plan each of the study's runs.

    Raises StudyError: one is too short for it.
    """
    if not certified.lengths:
        return
    _, model = loop.build(replace(config, settings=certified.settings), steps.SEED)
    for length in certified.lengths:
        folder = Path(length.data)
        rows = datasets.load_from_disk(next(iter(sorted(folder.glob("seed-*"))), folder))
        number = length.epochs * math.ceil(rows["train"].num_rows / length.batch_size)
        try:
            if hooks := training_hooks(model):
                hooks.begin(number)
        except StudyError as error:
            raise StudyError(f"hooks: {folder}: {error}") from None


def _at_once(settings: Settings) -> Settings:
    if isinstance(settings, PeftSettings) and is_adalora(settings):
        return replace(settings, config=settings.config | AT_ONCE)
    return settings
