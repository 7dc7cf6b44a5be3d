"""From the study's parameters to one small file per stage: what that stage's result depends on.

DVC compares these files, so a changed parameter reruns the stages whose file it changes, and no
other. Everything that can be known to be wrong before training is found here.
"""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft_study.data.sources import load_source
from peft_study.encoders.pretrained import is_hub_id, model_config, model_digest, model_folder
from peft_study.errors import StudyError
from peft_study.files import write_json
from peft_study.findings.published import check_published
from peft_study.study import AdapterHParams, LoraParams, Overrides, Study, TaskParams

# The libraries whose versions can change what a stage writes.
DATA_PACKAGES = ("datasets", "pyarrow", "tokenizers", "transformers")
TRAINING_PACKAGES = (
    *("accelerate", "numpy", "pandas", "pyarrow"),
    *("safetensors", "scikit-learn", "scipy", "torch", "transformers"),
)
METHOD_PACKAGES = {
    "lora": (),
    "peft_lora": ("peft",),
    "loralib_lora": ("loralib",),
    "adapter_h": ("adapters",),
    "full_ft": (),
}
LOCK = Path("requirements.lock")
# What makes a step neither longer nor shorter: the same in every profile, which is not repeated for
# it. The steps are as many as are asked for, and leave the weights nearly as they are.
COSTS_NOTHING = {
    "epochs": 10**6,
    "evaluations_per_epoch": 1,
    "learning_rate": 1e-6,
    "report": "last",
    "warmup_ratio": 0.0,
    "weight_decay": 0.01,
}


def configure(study: Study) -> dict[str, dict[str, Any]]:
    """Resolve a study into its stages' configurations.

    Returns:
        For each file below `configs/`, by its path without suffix, its contents.

    Raises:
        StudyError: the model cannot be loaded or does not allow what is asked of it, the device is
            not there, or a library is installed in another version than the pinned one.
    """
    check_against_model(study)
    check_device(study)
    init, starters = study.mnli_init, study.starters
    shared = init.mode == "full_ft"
    trained_on_it = ["full_ft"] if shared else study.methods
    configs: dict[str, dict[str, Any]] = {
        "prepare_intermediate": _prepare(study, "mnli_init", init.task, init) if starters else {},
        "mnli_init": {
            method: _intermediate(study, method, bool(starters) and method in trained_on_it)
            for method in {*study.methods, "full_ft"}
        },
        "sweep": _sweep(study),
        "profile": _profile(study),
        "parity": {
            **_model(study),
            "packages": pinned((*TRAINING_PACKAGES, "adapters", "loralib", "peft")),
        },
        "ready": {"starters": starters},
        "curves": {
            "methods": study.methods,
            "main_metrics": study.main_metrics,
            "seeds": study.seeds,
            "iso_margin": study.analysis.iso_margin,
            "sweep": {"task": study.sweep.task, "cells": _swept(study)} if _swept(study) else None,
        },
        "aggregate": {
            "methods": study.methods,
            "tasks": list(study.tasks),
            "main_metrics": study.main_metrics,
            "sweep": _swept(study),
            "equivalence_margin": study.analysis.equivalence_margin,
        },
        "report": _report(study),
    }
    for name, task in study.tasks.items():
        configs[f"prepare/{name}"] = _prepare(study, f"tasks.{name}", name, task)
    for method in study.methods:
        for name, task in study.tasks.items():
            start = f"init/{'full_ft' if shared else method}"
            configs[f"start/{method}-{name}"] = {"start": start if name in starters else None}
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
            its width, texts may be longer than its position embeddings, or these are relative.
    """
    name = study.model.name
    model = model_config(name, study.model.revision)
    kind = model.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise StudyError(
            f"model.name is '{name}': its position_embedding_type is '{kind}'; must be 'absolute'"
        )
    width, positions = model["hidden_size"], model["max_position_embeddings"]
    if model["model_type"] == "roberta":
        positions -= 2  # RoBERTa's positions start after the padding index
    lengths = {f"tasks.{name}.max_length": task.max_length for name, task in study.tasks.items()}
    lengths |= {"model.max_length": study.model.max_length}
    lengths |= {"mnli_init.max_length": study.mnli_init.max_length}
    for key, value, limit in (
        ("lora.r", study.lora.r, width),
        *((f"sweep.ranks: {rank}", rank, width) for rank in study.sweep.ranks),
        *((f"profile.ranks: {rank}", rank, width) for rank in study.profile.ranks),
        ("adapter_h.bottleneck", study.adapter_h.bottleneck, width),
        *((key, length, positions) for key, length in lengths.items()),
    ):
        if value and value > limit:
            raise StudyError(
                f"params.yaml: {key}: got {value}; must be at most {limit} for model.name '{name}'"
            )


def check_device(study: Study) -> None:
    """Check that this machine has `train.device`, unless the runs are trained on others.

    Raises:
        StudyError: it does not.
    """
    device = study.train.device
    if device == "cpu" or study.runner.backend == "ray":
        return
    import torch  # slow, and not needed otherwise

    module = torch.cuda if device == "cuda" else torch.backends.mps
    if not module.is_available():
        raise StudyError(f"params.yaml: train.device: got '{device}', which PyTorch does not find")


def _model(study: Study) -> dict[str, str | None]:
    name, revision = study.model.name, study.model.revision
    folder = model_folder(name, revision)
    # A hub model's revision is a hash of its files already.
    digest = None if is_hub_id(name) else model_digest(folder)
    return {"model": name, "model_revision": revision, "model_sha256": digest}


def _prepare(study: Study, key: str, name: str, task: TaskParams) -> dict[str, Any]:
    definition, source = study.task_definition(name, task), load_source(study.data.source)
    files = task.files.model_dump() if task.files else None
    return {
        "key": key,
        "task": name,
        "task_definition": asdict(definition),
        "source": study.data.source,
        "location": source.locate(name, definition, study.data.folder, files),
        "split_seed": study.data.split_seed,
        "train_rows": task.train_rows,
        "validation_rows": task.validation_rows,
        **_model(study),
        "packages": pinned(DATA_PACKAGES),
        "max_length": task.max_length or study.model.max_length,
    }


def _swept(study: Study) -> list[str]:
    return [f"{weights}-r{rank}" for rank, weights in study.sweep.cells]


def _sweep(study: Study) -> dict[str, Any]:
    configs = {}
    for rank, weights in study.sweep.cells:
        alpha = float(rank) if study.sweep.alpha == "rank" else study.sweep.alpha
        swept = {"r": rank, "alpha": alpha, "targets": weights.split("+")}
        config = _train(study, "lora", study.sweep.task, study.tasks[study.sweep.task])
        configs[f"{weights}-r{rank}"] = config | {"adapter": config["adapter"] | swept}
    return configs


def _profile(study: Study) -> dict[str, Any]:
    params = study.profile
    if not params.rounds:
        return {"cells": {}}
    name = params.task or next(iter(study.tasks))
    # One batch size for all: seconds of a step are to be compared.
    same = COSTS_NOTHING | {"batch_size": study.train.batch_size}
    cells = {}
    for method in dict.fromkeys((*study.methods, "lora")):
        config = _train(study, method, name, study.tasks[name])
        del config["seeds"]
        cells[method] = config | {"train": config["train"] | same}
    ours = cells["lora"]
    for rank in params.ranks:
        if rank != ours["adapter"]["r"]:
            cells[f"lora r={rank}"] = ours | {"adapter": ours["adapter"] | {"r": rank}}
    return {
        "task": name,
        "batch_size": study.train.batch_size,
        "reference": "full_ft" if "full_ft" in cells else "lora",
        "rounds": params.rounds,
        "assumed_watts": params.assumed_watts,
        "cells": cells,
        "packages": pinned(("psutil", "zeus")),
    }


def _report(study: Study) -> dict[str, Any]:
    """Return what the findings say of the study: everything but how its runs are run.

    Raises:
        StudyError: `analysis.published` names a table that is not known.
    """
    if problems := check_published(study.analysis.published):
        raise StudyError(f"params.yaml: analysis.{problems[0]}")
    params = study.model_dump(mode="json")
    del params["runner"]
    methods = {name: study.method_params(name).model_dump(mode="json") for name in study.methods}
    packages = dict.fromkeys(p for more in METHOD_PACKAGES.values() for p in more)
    return {
        "study": study.study,
        "model": params["model"],
        "data": params["data"],
        "seeds": study.seeds,
        "methods": study.methods,
        "tasks": list(study.tasks),
        "main_metrics": study.main_metrics,
        "outputs": {n: study.task_definition(n, t).labels for n, t in study.tasks.items()},
        "report": study.train.report,
        "mnli_init": {
            "mode": study.mnli_init.mode,
            "task": study.mnli_init.task,
            "tasks": study.starters,
        },
        "adapters": methods,
        "sweep": params["sweep"],
        "equivalence_margin": study.analysis.equivalence_margin,
        "published": study.analysis.published,
        "params": params,
        "packages": pinned((*TRAINING_PACKAGES, *packages)),
    }


def _intermediate(study: Study, method: str, wanted: bool) -> dict[str, Any]:
    init = study.mnli_init
    if not wanted:
        return {"seeds": []}
    config = _train(study, method, init.task, init)
    return config | {"save_weights": True, "seeds": [init.seed]}


def _train(study: Study, method: str, name: str, task: TaskParams) -> dict[str, Any]:
    params = study.method_params(method)
    shared = set(Overrides.model_fields)
    return {
        "method": method,
        "task": name,
        "task_definition": asdict(study.task_definition(name, task)),
        **_model(study),
        "seeds": study.seeds,
        "adapter": params.model_dump(exclude=shared),
        "train": study.hyperparameters(method, task),
        "save_weights": isinstance(params, LoraParams | AdapterHParams) or params.save_weights,
        "packages": pinned(TRAINING_PACKAGES + METHOD_PACKAGES[method]),
    }
