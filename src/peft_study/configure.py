"""From the study's parameters to one small file per stage: what that stage's result depends on.

DVC compares these files, so a changed parameter reruns the stages whose file it changes, and no
other. Everything that can be known to be wrong before training is found here.
"""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft_study.architectures import model_config
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.study import AdapterHParams, LoraParams, Overrides, Study, TaskParams
from peft_study.tasks import TASKS

# The libraries whose versions can change a trained weight.
PACKAGES = ("accelerate", "adapters", "loralib", "peft", "tokenizers", "torch", "transformers")


def configure(study: Study) -> dict[str, dict[str, Any]]:
    """Resolve a study into its stages' configurations.

    Returns:
        For each file below `configs/`, by its path without suffix, its contents.

    Raises:
        StudyError: the model cannot be loaded, or an adapter is wider than the model.
    """
    check_against_model(study)
    versions = {name: version(name).split("+")[0] for name in PACKAGES}
    init = study.mnli_init
    starters = init.tasks if init.mode == "per_method" else []
    configs: dict[str, dict[str, Any]] = {
        "prepare_intermediate": _prepare(study, "mnli_init", init.task, init),
        "parity": {"model": study.model.name, "packages": versions},
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
            _train(study, method, init.task, init, versions)
            | {"save_weights": True, "seeds": [init.seed]}
            if starters
            else {"seeds": []}
        )
        for name, task in study.tasks.items():
            configs[f"start/{method}-{name}"] = {"intermediate": name in starters}
            configs[f"train/{method}-{name}"] = _train(study, method, name, task, versions)
    return configs


def write_configs(study: Study, directory: Path) -> int:
    """Write `configure(study)` below `directory`; return the number of files."""
    configs = configure(study)
    for name, config in configs.items():
        write_json(directory / f"{name}.json", config)
    return len(configs)


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


def _prepare(study: Study, key: str, name: str, task: TaskParams) -> dict[str, Any]:
    return {
        "key": key,
        "task": name,
        "task_definition": asdict(TASKS[name]),
        "source": study.data.source,
        "split_seed": study.data.split_seed,
        "train_rows": task.train_rows,
        "validation_rows": task.validation_rows,
        "model": study.model.name,
        "max_length": study.model.max_length,
    }


def _train(
    study: Study, method: str, name: str, task: TaskParams, versions: dict[str, str]
) -> dict[str, Any]:
    params = study.method_params(method)
    shared = set(Overrides.model_fields)
    return {
        "method": method,
        "task": name,
        "task_definition": asdict(TASKS[name]),
        "model": study.model.name,
        "seeds": study.seeds,
        "adapter": params.model_dump(exclude=shared),
        "train": study.hyperparameters(method, task),
        "save_weights": isinstance(params, LoraParams | AdapterHParams) or params.save_weights,
        "packages": versions,
    }
