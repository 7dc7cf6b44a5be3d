"""Variants of a study: its parameters with a few overridden, resolved as the study itself is.

A grid of them is the sweep; one setting at a time, they are the ledger of what a result hangs on.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from peft_study.checks import check_against_model, check_device, check_recipes
from peft_study.errors import StudyError
from peft_study.files import as_json
from peft_study.grids import Setting, fit, slug
from peft_study.records.variants import SWEEP, UNTUNED, Kind, LedgerEntry, is_untuned
from peft_study.resolver import Resolver, encoder_of
from peft_study.stage_configs import PrepareConfig, Start, VariantCell, VariantsConfig
from peft_study.study import Study
from peft_study.tuning import INTERMEDIATE, chosen_for, tuned

RUNS, APART = "runs/variants", "data/apart"
PREPARED = "data/prepared"
Rows = dict[str, PrepareConfig]  # by folder


def check_settings(study: Study) -> None:
    """Check what the encoder, a library or this machine has to say of the ledger's settings.

    Raises StudyError with the setting's name, as the checks of the study itself do.
    """
    for name, setting in study.ledger.settings.items():
        origin = f"params.yaml: ledger.settings.{name}"
        varied = study.varied(setting, origin)
        try:
            check_against_model(varied)
            check_device(varied)
            if (varied.model, varied.recipes) != (study.model, study.recipes):
                check_recipes(varied)
        except StudyError as error:
            raise StudyError(f"{origin}: {str(error).removeprefix('params.yaml: ')}") from None


def resolve_variants(study: Resolver) -> tuple[VariantsConfig, Rows]:
    """Resolve the cells of the sweep and of the ledger's single settings.

    Raises StudyError, with the name of the setting, if it changes nothing, or something that
    cannot be compared with the study, or is not allowed for the encoder.
    """
    params, found = study.study, _Variants(study)
    for name, setting in params.sweep.cells.items():
        variant = found.variant(setting, f"params.yaml: sweep, {name}")
        cell = found.cell(variant, "lora", params.sweep.task)
        config = replace(cell.config, seeds=tuple(params.seeds))
        found.cells[f"{SWEEP}/{name}"] = replace(cell, config=config)
    entries = found.ledger([("study", ()), *(("alone", (n,)) for n in params.ledger.settings)])
    for name in params.ledger.settings:
        if not any(entry.place for entry in entries if entry.settings == (name,)):
            raise StudyError(
                f"params.yaml: ledger.settings.{name}: changes nothing of what the ledger's "
                "methods and tasks depend on; take it out, or change something else"
            )
    if params.tune.grid:
        for method in params.trained:
            for task in params.tasks_of(method):
                found.cells[f"{UNTUNED}/{method}/{task}"] = found.cell(study, method, task)
    return found.config(entries, params.ledger.together), found.apart


def resolve_combinations(
    study: Resolver, prepared: Collection[str], chosen: Iterable[LedgerEntry]
) -> tuple[VariantsConfig, Rows]:
    """Resolve cells in which several of the ledger's settings are changed at once.

    `prepared` are the folders of rows that single settings need. What others need is prepared below
    the runs, since `prepare` ended before these were chosen.
    """
    found, entries = _Variants(study, prepared), list[LedgerEntry]()
    for entry in chosen:
        entries += found.ledger([(entry.kind, entry.settings)], [(entry.method, entry.task)])
    return found.config(entries), found.apart


def differing(cells: Mapping[str, VariantCell]) -> dict[str, VariantCell]:
    """Leave out the study's own cells whose hyperparameters tuning has chosen again."""
    found = {}
    for place, cell in cells.items():
        if is_untuned(place):
            chosen = chosen_for(cell.config.run.method).get(cell.config.run.task, {})
            if tuned(cell.config, chosen) == cell.config:
                continue
        found[place] = cell
    return found


def together(study: Resolver) -> Callable[[tuple[str, ...]], bool]:
    """Return what tells whether settings of the ledger can be changed at once."""
    settings = study.study.ledger.settings

    def fits(names: tuple[str, ...]) -> bool:
        if not fit([settings[name] for name in names]):
            return False
        try:
            _Variants(study).variant(_merged(settings, names), "params.yaml")
        except StudyError:
            return False
        return True

    return fits


class _Variants:
    """Collects cells of variants, with the rows and the starts that they need.

    `apart` are the rows that are still to be prepared, by `prepare`, or by the stage itself where
    `prepared` names the folders that are there.
    """

    def __init__(self, study: Resolver, prepared: Collection[str] | None = None) -> None:
        self.study, self.prepared = study, prepared
        self.cells: dict[str, VariantCell] = {}
        self.starts: dict[str, Start] = {}
        self.rows: Rows = {}
        self.apart: Rows = {}

    def config(self, entries: Sequence[LedgerEntry], also: bool = False) -> VariantsConfig:
        """Return what was collected."""
        return VariantsConfig(self.cells, self.starts, self.rows, tuple(entries), also)

    def variant(self, setting: Setting, origin: str) -> Resolver:
        """Return the study with a setting changed. Raises StudyError that begins with `origin`."""
        study, own = self.study.study.varied(setting, origin), self.study.study.model
        same = (study.model.name, study.model.revision) == (own.name, own.revision)
        return replace(
            self.study, study=study, encoder=self.study.encoder if same else encoder_of(study)
        )

    def ledger(
        self,
        wanted: Iterable[tuple[Kind, tuple[str, ...]]],
        of: Iterable[tuple[str, str]] | None = None,
    ) -> list[LedgerEntry]:
        """Add the cells of the ledger with these settings, and return what they are."""
        params, entries = self.study.study, []
        pairs = list(params.ledger_cells if of is None else of)
        for kind, names in wanted if pairs else ():
            origin = f"params.yaml: ledger.settings.{' and '.join(names)}"
            variant = self.variant(_merged(params.ledger.settings, names), origin)
            folder = f"alone/{slug(names[0])}" if kind == "alone" else kind
            for method, task in pairs:
                cell, own = self.cell(variant, method, task), self.cell(self.study, method, task)
                place = f"ledger/{method}/{task}/{folder}"
                if kind != "study" and cell == own:
                    entries.append(LedgerEntry(method, task, kind, names, None))
                    continue
                self._comparable(variant, task, origin)
                self.cells[place] = cell
                entries.append(LedgerEntry(method, task, kind, names, place))
        return entries

    def cell(self, variant: Resolver, method: str, task: str) -> VariantCell:
        """Resolve a method's runs on a task, and add the rows and the start that they need."""
        found = variant.cell(method, task)
        report, own = found.run.train.report, self.study.study.train.report
        # Which evaluation counts changes no run: the study's own serves.
        run = replace(found.run, train=replace(found.run.train, report=own))
        data = self._data(variant.rows(task), self.study.rows(task), f"{PREPARED}/{task}")
        start = self._start(variant, method) if found.starts else None
        return VariantCell(replace(found, run=run), data, start, report)

    def _data(self, rows: PrepareConfig, own: PrepareConfig | None, place: str) -> str:
        """Return the folder of rows: the study's own, or one apart."""
        folder, name = place, _digest(replace(rows, key=""))
        if rows != own:
            folder = f"{APART}/{name}"
            if self.prepared is None:
                self.apart[folder] = rows
            elif folder not in self.prepared:
                folder = f"{RUNS}/prepared/{name}"
                self.apart[folder] = rows
        self.rows[folder] = rows
        return folder

    def _start(self, variant: Resolver, method: str) -> str:
        """Return the folder of what a method's runs start from.

        It is a copy even where it is the study's own, whose weights the run store has: so what
        methods start from can change without a change of these variants.
        """
        cell, rows = variant.start(method), variant.intermediate_rows()
        assert cell is not None
        assert rows is not None
        data = self._data(rows, self.study.intermediate_rows(), INTERMEDIATE)
        folder = f"{RUNS}/init/{_digest((cell, replace(rows, key='')))}"
        self.starts[folder] = Start(cell, data)
        return f"{folder}/start"

    def _comparable(self, variant: Resolver, task: str, origin: str) -> None:
        """Raise StudyError if a variant holds out other rows, or scores them otherwise."""
        theirs, own = (vars(of.rows(task)) for of in (variant, self.study))
        for key in ("definition", "source", "location", "split_seed", "validation_rows"):
            if theirs[key] != own[key]:
                raise StudyError(
                    f"{origin}: changes which rows of '{task}' are held out, or their labels "
                    f"({key}); a setting is compared with the study on the same rows"
                )


def _merged(settings: Mapping[str, Setting], names: Iterable[str]) -> Setting:
    merged: Setting = {}
    for name in names:
        merged |= settings[name]
    return merged


def _digest(value: object) -> str:
    return hashlib.sha256(as_json(value).encode()).hexdigest()[:12]
