"""The small form of a study: its parameters, and the folder in which it is rehearsed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from peft_study import presets
from peft_study.data.sources import opinions
from peft_study.encoders.pretrained import in_hub_cache, is_hub_id, model_config, model_folder
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.rehearsal.rows import ROWS, SIZE, write_files, write_model, write_rows
from peft_study.study import Study

PUBLISHED_MODELS = Path(__file__).parent.parent / "parity/published_models.json"
PIPELINE = ("dvc.yaml", "requirements.lock", ".dvcignore", "stages", "src/peft_study")
EPOCHS, SEEDS, ROUNDS = 2, 2, 2


def write_small(name: str, folder: Path) -> None:
    """Make `folder` a checkout of the pipeline whose params.yaml is the study `name`, made small.

    The model is a tiny random one of the study's architecture. Rows are the first of the study's
    own where their folder is at hand, or made up. There are two epochs and two seeds; all else is
    as the study has it.

    Raises StudyError if there is no such study, or nobody can make up rows or a model for it.
    """
    study, values = presets.load(name), presets.values(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in PIPELINE:
        copy = shutil.copytree if Path(part).is_dir() else shutil.copy
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(part, folder / part)
    model = f"tiny-random-{architecture_of(study)['model_type']}"
    write_model(architecture_of(study), _tokeniser(study), folder / model)
    values["data"] |= _write_data(study, folder)
    values["model"] |= {"name": model, "revision": None}
    _shorten(values, study)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(values, file)


def architecture_of(study: Study) -> dict[str, object]:
    """Return the configuration of a study's model, from its files or from the papers' models.

    Raises StudyError if it is neither at hand nor one of these.
    """
    if _at_hand(study):
        return model_config(study.model.name, study.model.revision)
    models: dict[str, dict[str, object]] = read_json(PUBLISHED_MODELS)
    short = study.model.name.rpartition("/")[-1].lower()
    if short not in models:
        known = ", ".join(sorted(models))
        raise StudyError(
            f"model.name: '{study.model.name}' is not at hand, and its shape is not known; fetch "
            f"it into the hub's cache, or name one of: {known}"
        )
    return models[short]


def _at_hand(study: Study) -> bool:
    name, revision = study.model.name, study.model.revision
    if name == "minilm" or Path(name).is_dir():
        return True
    return is_hub_id(name) and in_hub_cache(name, revision)


def _tokeniser(study: Study) -> Path | None:
    return model_folder(study.model.name, study.model.revision) if _at_hand(study) else None


def _write_data(study: Study, folder: Path) -> dict[str, object]:
    """Return what `data` is to say, having made up rows if the study's own are not at hand."""
    data, init = study.data, study.mnli_init
    if data.source == "opinions":
        archive = opinions.fetch()
        (folder / opinions.DOWNLOADS).mkdir(parents=True)
        shutil.copy(archive, folder / opinions.DOWNLOADS)
        return {}
    if data.folder and Path(data.folder).is_dir():
        return {"folder": str(Path(data.folder).resolve())}
    settings = study.ledger.settings.values()
    starts = [of.starters for of in (study, *(study.varied(of, "ledger") for of in settings))]
    tasks = dict(study.tasks) | ({init.task: init} if any(starts) else {})
    for name, task in tasks.items():
        definition = study.task_definition(name, task)
        if data.source == "hub":
            write_rows(name, definition, folder / "rows")
        else:
            write_files(name, definition, task.files, folder / "rows")
    return {"folder": "rows"}


def _shorten(values: dict[str, Any], study: Study) -> None:
    """Make parameters those of a rehearsal: few rows, epochs and seeds, and marked as one."""
    values["rehearsal"] = True
    # What others predicted of the study's own rows are no predictions of these.
    values["methods"] = study.trained
    own = [*values["seeds"], *range(1, SEEDS + 1)]
    values["seeds"] = list(dict.fromkeys(own))[:SEEDS]
    for alone in values["only"].values():
        if alone.get("seeds"):
            alone["seeds"] = alone["seeds"][:SEEDS]
    for recipe in values.get("recipes", {}).values():
        if recipe.get("leave_out"):  # of the tiny model's layers, whose last is adapted
            last = SIZE["num_hidden_layers"] - 1
            recipe["leave_out"] = [layer for layer in recipe["leave_out"] if layer < last]
    values["profile"]["rounds"] = min(values["profile"]["rounds"], ROUNDS)
    values["runner"] |= {"backend": "local", "workers": 1}
    _set_epochs(values)
    for setting in values["ledger"]["settings"].values():
        # Still another number than the study's, or the setting would change nothing.
        setting |= {key: EPOCHS + 1 for key in setting if key.endswith(".epochs")}
    for task in (*values["tasks"].values(), values["mnli_init"]):
        task |= {f"{split}_rows": rows for split, rows in ROWS.items()}


def _set_epochs(values: Mapping[str, Any]) -> None:
    for block in values.values():
        if isinstance(block, dict):
            if block.get("epochs"):
                block["epochs"] = EPOCHS
            _set_epochs(block)
