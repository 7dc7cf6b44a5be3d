"""What a study varies: the sweep's grid, the ledger's settings, and the trials of its tuning."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, ValidationError

from peft_study.encoders.architectures import Weight
from peft_study.errors import nearest
from peft_study.mistakes import explain
from peft_study.recipes import Block, Overrides

if TYPE_CHECKING:
    from peft_study.study import Study

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Setting = dict[str, JsonValue]  # overrides of the parameters, by their dotted keys
Names = Annotated[list[str], Field(default_factory=list)]
Numbers = Annotated[list[float], Field(default_factory=list)]
Counts = Annotated[list[int], Field(default_factory=list)]
Settings = dict[Annotated[str, Field(min_length=1, max_length=60)], Setting]
# What a setting may change: what a run depends on.
CHANGEABLE = (
    *("model", "data", "tasks", "mnli_init", "train"),
    *("lora", "adapter_h", "full_ft", "recipes"),
)


class SweepParams(Block):
    """`sweep`: our LoRA at every rank with every set of weights (Hu et al. 2021, section 7.2)."""

    task: str
    alpha: Annotated[float, Field(gt=0)] | Literal["rank"]
    ranks: list[Annotated[int, Field(ge=1)]]
    weights: list[str]

    @property
    def cells(self) -> dict[str, Setting]:
        """The overrides of every rank with every set of weights, by name: `query+value-r8`."""
        return {
            f"{weights}-r{rank}": {
                "lora.r": rank,
                "lora.alpha": float(rank) if self.alpha == "rank" else self.alpha,
                "lora.targets": list(weights.split("+")),
            }
            for rank in self.ranks
            for weights in self.weights
        }

    def problems(self) -> Iterator[str]:
        """Yield a line for each mistake that this block alone can tell."""
        sets = [weights.split("+") for weights in self.weights]
        for weights, names in zip(self.weights, sets, strict=True):
            known = get_args(Weight)
            for name in names:
                if name not in known:
                    yield f"sweep.weights.{weights}: got '{name}'; {nearest(name, set(known))}"
            yield from repeated(f"sweep.weights.{weights}", names)
        yield from repeated("sweep.ranks", self.ranks)
        yield from repeated("sweep.weights", ["+".join(sorted(names)) for names in sets])
        if bool(self.ranks) != bool(self.weights):
            yield "sweep.ranks, sweep.weights: only one has items; name both, or neither"


class LedgerParams(Block):
    """`ledger`: settings that are changed one at a time, from the study as it stands.

    Without `methods` these are all that are trained here, without `tasks` all. `together` also
    changes all settings at once that raise the score.
    """

    methods: Names
    tasks: Names
    settings: Annotated[Settings, Field(default_factory=dict)]
    together: bool = True

    def problems(self) -> Iterator[str]:
        """Yield a line for each mistake that this block alone can tell."""
        yield from repeated("ledger.methods", self.methods)
        yield from repeated("ledger.tasks", self.tasks)
        named: dict[str, str] = {}
        for name, setting in self.settings.items():
            key, folder = f"ledger.settings.{name}", slug(name)
            if not name.isprintable() or not folder:
                yield f"{key}: the name needs a letter or a digit, and signs that can be seen"
            elif folder in named:
                yield f"{key}: '{named[folder]}' differs from it in signs alone; rename one"
            named.setdefault(folder, name)
            if not setting:
                yield f"{key}: got {{}}; must name keys of params.yaml and their values"
            for path in setting:
                if (first := path.split(".")[0]) not in CHANGEABLE:
                    yield f"{key}.{path}: cannot be a setting; {nearest(first, {*CHANGEABLE})}"
        if (self.methods or self.tasks) and not self.settings:
            yield "ledger.settings: got {}; name what to change, or empty the whole ledger"


class TuneParams(Block):
    """`tune`: values of hyperparameters that all methods try on every task; none: no tuning.

    Learning rates among which there is 1 are factors of each method's own. Trials hold out `rows`,
    a share of the training rows, and have `seeds` of their own.
    """

    learning_rate: Numbers
    epochs: Counts
    batch_size: Counts
    warmup_ratio: Numbers
    weight_decay: Numbers
    adam_beta2: Numbers
    adam_epsilon: Numbers
    seeds: Annotated[list[Seed], Field(min_length=1, default_factory=lambda: [101, 102])]
    rows: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @property
    def grid(self) -> Mapping[str, Sequence[float]]:
        """The values to try, by hyperparameter."""
        listed = ((key, getattr(self, key)) for key in Overrides.model_fields if key != "head")
        return {key: values for key, values in listed if values}

    @property
    def factors(self) -> bool:
        """Whether learning rates are factors of each method's own."""
        return 1 in self.learning_rate

    def trials(self, own_rate: float) -> list[dict[str, int | float]]:
        """Return the values of every trial of a method whose own learning rate is `own_rate`."""
        grid = dict(self.grid)
        if self.factors:
            # To twelve digits, so that 0.25 of 4e-3 is 1e-3.
            grid["learning_rate"] = [float(f"{own_rate * f:.12g}") for f in grid["learning_rate"]]
        return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]

    def problems(self) -> Iterator[str]:
        """Yield a line for each mistake that this block alone can tell."""
        yield from repeated("tune.seeds", self.seeds)
        for key, values in self.grid.items():
            yield from repeated(f"tune.{key}", values)
            if key == "learning_rate" and self.factors:
                wrong = [value for value in values if value <= 0]
                yield from (f"tune.{key}: got {v}; a factor must be above 0" for v in wrong)
                continue
            for value in values:
                try:
                    Overrides.model_validate({key: value})
                except ValidationError as error:
                    yield from (f"tune.{line}" for line in explain(error, Overrides))


def problems(study: "Study") -> Iterator[str]:
    """Yield a line for each mistake in what a study varies."""
    sweep, ledger, tune = study.sweep, study.ledger, study.tune
    for block in (sweep, ledger, tune):
        yield from block.problems()
    wrong = [
        f"{key}: got '{name}'; {nearest(name, known)}"
        for key, names, known in (
            ("sweep.task", [sweep.task], {*study.tasks}),
            ("ledger.methods", ledger.methods, {*study.trained}),
            ("ledger.tasks", ledger.tasks, {*study.tasks}),
        )
        for name in names
        if name not in known
    ]
    yield from wrong
    if sweep.cells and sweep.task in study.starters:
        yield (
            f"sweep.task: got '{sweep.task}', which mnli_init.tasks starts from an adapter "
            "of one rank and set of weights; a sweep starts from the encoder, so take it out there"
        )
    if ledger.settings and not (wrong or study.ledger_cells):
        yield "ledger.methods, ledger.tasks: the study trains none of these methods on these tasks"
    if not tune.grid:
        return
    if ledger.settings:
        yield (
            "tune, ledger: both have items; the ledger changes a study whose hyperparameters are "
            "known, so tune first and write what was chosen into the study"
        )
    used = {study.mnli_init.seed, *(seed for m in study.trained for seed in study.seeds_of(m))}
    for seed in tune.seeds:
        if seed in used:
            yield f"tune.seeds: got {seed}, which the study has; trials need seeds of their own"
    if tune.factors:
        own, method = max(
            (study.hyperparameters(method, task).learning_rate, method)
            for method in study.trained
            for task in study.tasks_of(method).values()
        )
        if (most := own * max(tune.learning_rate)) > 1:
            yield (
                f"tune.learning_rate: {max(tune.learning_rate):g} times {method}'s own {own:g} is "
                f"{most:g}; must be at most 1"
            )


def repeated(key: str, items: Sequence[object]) -> Iterator[str]:
    """Yield a line for each item that a list holds twice."""
    for item in dict.fromkeys(item for item in items if items.count(item) > 1):
        yield f"{key}: {item!r} is repeated; name each once"


def changed(values: dict[str, Any], setting: Mapping[str, object]) -> Iterator[str]:
    """Change parameters in place as a setting says; yield a line for each key that is not there."""
    for path, value in setting.items():
        *above, last = path.split(".")
        at, known = values, True
        for place, part in enumerate(above):
            # Blocks may be new, as a method's below a task; tasks and recipes may not.
            if place == 1 and above[0] in ("tasks", "recipes") and part not in at:
                yield f"{path}: got '{part}'; {nearest(part, set(at))}"
                known = False
                break
            if not isinstance(at.setdefault(part, {}), dict):
                yield f"{path}: '{'.'.join(above[: place + 1])}' is no block of keys"
                known = False
                break
            at = at[part]
        if known:
            at[last] = value


def slug(name: str) -> str:
    """Return the name of a setting as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def fit(settings: Sequence[Setting]) -> bool:
    """Tell whether settings can be changed at once: none sets what another does."""
    keys = [key for setting in settings for key in setting]
    return not any(
        i != j and f"{one}.".startswith(f"{other}.")
        for i, one in enumerate(keys)
        for j, other in enumerate(keys)
    )
