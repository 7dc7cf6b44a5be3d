"""A few training steps of a method, watched: gradients, moves, frozen weights and hooks."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.backbone import head_parameters
from peft_study.errors import StudyError
from peft_study.methods import Method, training_hooks
from peft_study.methods.adapters_words import WORDS, word_of
from peft_study.parity.numbers import HYPER, TASK
from peft_study.records import Record
from peft_study.run_config import AdaptersSettings, RunConfig, Settings
from peft_study.stage_configs import is_adalora
from peft_study.training import loop
from peft_study.training.batches import Split

SEED, STEPS = 0, 3
# Without decay, which moves tensors that have no gradient.
SHORT = replace(HYPER, schedule="constant", warmup_ratio=0.0, weight_decay=0.0)


class Watched(Record):
    """What was seen of a method in `STEPS` steps.

    `without_gradient` and `unmoved` name trained tensors of the adapter, `changed` frozen ones, of
    which there are `frozen`; `hooks` counts calls.
    """

    without_gradient: tuple[str, ...]
    unmoved: tuple[str, ...]
    frozen: int
    changed: tuple[str, ...]
    hooks: dict[str, int]


def needs(settings: Settings) -> str:
    """Return what a configuration must respect for all that it adds to be used."""
    parts = settings.config.split("|") if isinstance(settings, AdaptersSettings) else ()
    said = filter(None, (WORDS[word_of(part)].needs for part in parts))
    return "; ".join(said) or "a configuration that uses, and trains, all that it adds"


def trained_state(method: Method, model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return what is trained of an adapter, live, by name."""
    return {n: p for n, p in method.adapter_state(model).items() if p.requires_grad}


def train(config: RunConfig, method: Method, model: PreTrainedModel, split: Split) -> Watched:
    """Train a built `model` for `STEPS` steps, in place, and watch it."""
    trained, frozen = trained_state(method, model), _frozen(model)
    before, with_gradient, moved = digests(trained), set(), set()
    calls = _watch_hooks(model)

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        if name == "optimiser":
            for key, parameter in trained.items():
                if parameter.grad is not None and bool(parameter.grad.any()):
                    with_gradient.add(key)
        yield

    accelerator = loop.make_accelerator(config.train)
    adamw, rows = loop.make_optimizer(model, config.train), _first(split, STEPS)
    about = TASK, config.train, SEED, accelerator
    for _ in loop.training_steps(model, adamw, rows, *about, phase=phase):
        # Whatever becomes of it later: AdaLoRA sets values back.
        waiting = digests({key: p for key, p in trained.items() if key not in moved})
        moved |= {key for key, digest in waiting.items() if digest != before[key]}
    model.eval()
    after = _frozen(model)
    return Watched(
        without_gradient=tuple(sorted(set(trained) - with_gradient)),
        unmoved=tuple(sorted(set(trained) - moved)),
        frozen=len(frozen),
        changed=tuple(sorted(key for key in frozen | after if frozen.get(key) != after.get(key))),
        hooks=dict(calls),
    )


def check(settings: Settings, model: PreTrainedModel, seen: Watched) -> tuple[int, int] | None:
    """Return AdaLoRA's ranks before and after the steps; None of other methods.

    Raises StudyError: a hook was not called, a trained tensor had no gradient or has not moved, a
    frozen one has, or AdaLoRA has all its ranks.
    """
    needed = {"begin": 1, "penalty": STEPS, "after_step": STEPS}
    for hook, times in needed.items() if training_hooks(model) or is_adalora(settings) else ():
        if (called := seen.hooks.get(hook, 0)) < times:
            found = f"hooks: '{hook}' was called {called} times in {STEPS} steps, not {times}"
            raise StudyError(f"{found}; without it the method is another: mend its module")
    if seen.without_gradient:
        found = f"gradients: '{seen.without_gradient[0]}' has none within {STEPS} steps"
        more = f" (nor have {n} others)" if (n := len(seen.without_gradient) - 1) else ""
        mend = f"it needs {needs(settings)}"
        raise StudyError(f"{found}{more}; {mend}")
    if seen.unmoved:
        found = f"gradients: '{seen.unmoved[0]}' has one but does not move in {STEPS} steps"
        raise StudyError(f"{found}; let the optimiser have it")
    if seen.changed:
        found = f"frozen weights: '{seen.changed[0]}' has changed in {STEPS} steps"
        raise StudyError(f"{found}; let it be part of what is trained and saved, or freeze it")
    if not is_adalora(settings):
        return None
    values = [p for n, p in model.named_parameters() if ".lora_E." in n]
    ranks = sum(p.numel() for p in values), sum(int(p.count_nonzero()) for p in values)
    if ranks[1] >= ranks[0]:
        found = f"hooks: AdaLoRA has {ranks[1]} of {ranks[0]} ranks after {STEPS} steps"
        raise StudyError(f"{found}, so that it reallocates none; mend its module")
    return ranks


def digests(tensors: dict[str, Any]) -> dict[str, str]:
    """Return a hash of the bits of each tensor."""
    return {name: _digest(t) for name, t in tensors.items() if isinstance(t, Tensor)}


def outcome(method: Method, model: PreTrainedModel) -> dict[str, str]:
    """Return hashes of all that was trained, the head included."""
    return digests(trained_state(method, model) | head_parameters(model))


def _first(split: Split, batches: int) -> Split:
    rows = batches * HYPER.batch_size
    columns = {name: column[:rows] for name, column in split.columns.items()}
    return Split(split.ids[:rows], columns, split.labels[:rows])


def _frozen(model: PreTrainedModel) -> dict[str, str]:
    state = model.state_dict(keep_vars=True)
    return digests({n: t for n, t in state.items() if not getattr(t, "requires_grad", True)})


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def _watch_hooks(model: PreTrainedModel) -> Counter[str]:
    """Put what counts calls in the place of a model's hooks; return its counts, live."""
    calls: Counter[str] = Counter()

    class Counting:
        def __getattr__(self, name: str) -> object:
            calls[name] += 1  # a hook is looked up where it is called
            return getattr(hooks, name)

    if hooks := training_hooks(model):
        model.__dict__["training_hooks"] = Counting()
    return calls
