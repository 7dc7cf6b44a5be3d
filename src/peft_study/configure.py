"""From the study's parameters to one small file per stage: what that stage's result depends on.

DVC compares these files, so a changed parameter reruns the stages whose file it changes, and no
other. Everything that can be known to be wrong before training is found here.
"""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft_study.architectures import model_config, model_digest, model_folder
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.study import AdapterHParams, LoraParams, Overrides, Study, TaskParams
from peft_study.tasks import TASKS

# The libraries whose versions can change what a stage writes.
DATA_PACKAGES = ("datasets", "pyarrow", "tokenizers", "transformers")
TRAINING_PACKAGES = ("accelerate", "torch", "transformers")
METHOD_PACKAGES = {
    "lora": (),
    "peft_lora": ("peft",),
    "loralib_lora": ("loralib",),
    "adapter_h": ("adapters",),
    "full_ft": (),
}
LOCK = Path("requirements.lock")


def configure(study: Study) -> dict[str, dict[str, Any]]:
    """Resolve a study into its stages' configurations.

    Returns:
        For each file below `configs/`, by its path without suffix, its contents.

    Raises:
        StudyError: the model cannot be loaded, an adapter is wider than the model, or a library is
            installed in another version than the pinned one.
    """
    check_against_model(study)
    init = study.mnli_init
    starters = init.tasks if init.mode == "per_method" else []
    configs: dict[str, dict[str, Any]] = {
        "prepare_intermediate": _prepare(study, "mnli_init", init.task, init),
        "parity": {
            **_model(study),
            "packages": pinned((*TRAINING_PACKAGES, "adapters", "loralib", "peft")),
        },
        "aggregate": {
            "study": study.study,
            "model": study.model.name,
            "methods": study.methods,
            "tasks": list(study.tasks),
            "seeds": study.seeds,
        },
    }
    for name, task in study.tasks.items():
        configs[f"prepare/{name}"] = _prepare(study, f"tasks.{name}", name, task)
    for method in study.methods:
        configs[f"mnli_init/{method}"] = (
            _train(study, method, init.task, init) | {"save_weights": True, "seeds": [init.seed]}
            if starters
            else {"seeds": []}
        )
        for name, task in study.tasks.items():
            configs[f"start/{method}-{name}"] = {"intermediate": name in starters}
            configs[f"train/{method}-{name}"] = _train(study, method, name, task)
    return configs


def write_configs(study: Study, directory: Path) -> int:
    """Write `configure(study)` below `directory`, and nothing else; return the number of files."""
    configs = {directory / f"{name}.json": config for name, config in configure(study).items()}
    for stale in set(directory.rglob("*.json")) - set(configs):
        stale.unlink()
    for path, config in configs.items():
        write_json(path, config)
    return len(configs)


def pinned(packages: tuple[str, ...], lock: Path = LOCK) -> dict[str, str]:
    """Return the versions that `lock` pins for `packages`.

    Raises:
        StudyError: a package is not pinned, or another version of it is installed.
    """
    pins = dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    for name in packages:
        installed = version(name).split("+")[0]
        if pins.get(name) != installed:
            raise StudyError(
                f"{lock}: {name} is pinned to {pins.get(name)}, but {installed} is installed; "
                "run 'make env'"
            )
    return {name: pins[name] for name in packages}


def check_against_model(study: Study) -> None:
    """Check the parameters that only the model's configuration can judge.

    Raises:
        StudyError: the model is missing or of an unknown architecture, a rank or bottleneck exceeds
            its width, or texts may be longer than its position embeddings.
    """
    model = model_config(study.model.name)
    width, positions = model["hidden_size"], model["max_position_embeddings"]
    if model["model_type"] == "roberta":
        positions -= 2  # RoBERTa's positions start after the padding index
    for key, value, limit in (
        ("lora.r", study.lora.r, width),
        ("adapter_h.bottleneck", study.adapter_h.bottleneck, width),
        ("model.max_length", study.model.max_length, positions),
    ):
        if value > limit:
            raise StudyError(
                f"params.yaml: {key}: got {value}; must be at most {limit} for model.name "
                f"'{study.model.name}'"
            )


def _model(study: Study) -> dict[str, str]:
    name = study.model.name
    return {"model": name, "model_sha256": model_digest(model_folder(name))}


def _prepare(study: Study, key: str, name: str, task: TaskParams) -> dict[str, Any]:
    return {
        "key": key,
        "task": name,
        "task_definition": asdict(TASKS[name]),
        "source": study.data.source,
        "split_seed": study.data.split_seed,
        "train_rows": task.train_rows,
        "validation_rows": task.validation_rows,
        **_model(study),
        "packages": pinned(DATA_PACKAGES),
        "max_length": study.model.max_length,
    }


def _train(study: Study, method: str, name: str, task: TaskParams) -> dict[str, Any]:
    params = study.method_params(method)
    shared = set(Overrides.model_fields)
    return {
        "method": method,
        "task": name,
        "task_definition": asdict(TASKS[name]),
        **_model(study),
        "seeds": study.seeds,
        "adapter": params.model_dump(exclude=shared),
        "train": study.hyperparameters(method, task),
        "save_weights": isinstance(params, LoraParams | AdapterHParams) or params.save_weights,
        "packages": pinned(TRAINING_PACKAGES + METHOD_PACKAGES[method]),
    }
