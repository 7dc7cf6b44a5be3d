"""Datasets of the Hugging Face hub, each at a pinned revision, or saved copies of them.

The ordinary variables apply: `HF_HOME`, `HF_DATASETS_CACHE`, `HF_HUB_OFFLINE`. What the hub's
cache holds is used without a network.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft_study.data.sources import Row, Side
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, first_line, nearest, system_errors
from peft_study.files import sha256
from peft_study.records import Record


class HubDataset(Record):
    """Where the hub keeps a task. Its text columns are named as those of `peft_study.data.tasks`.

    Attributes:
        revision: the commit that is read.
        config: the dataset's configuration, if it has several.
        train_rows: rows of its training split, those without a label included.
        dropped: how many of them `peft_study.data.prepare` drops; None where nobody has counted.
        validation: the splits held out, in the order of the task's parts.
    """

    repo: str
    revision: str
    config: str | None
    train_rows: int
    dropped: int | None = None
    validation: tuple[str, ...] = ("validation",)


_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")

DATASETS: dict[str, HubDataset] = {
    "cola": HubDataset(*_GLUE, "cola", 8_551, 19),
    "sst2": HubDataset(*_GLUE, "sst2", 67_349, 5),
    "mrpc": HubDataset(*_GLUE, "mrpc", 3_668, 1),
    "qqp": HubDataset(*_GLUE, "qqp", 363_846),
    "stsb": HubDataset(*_GLUE, "stsb", 5_749, 12),
    "mnli": HubDataset(
        *_GLUE, "mnli", 392_702, validation=("validation_matched", "validation_mismatched")
    ),
    "qnli": HubDataset(*_GLUE, "qnli", 104_743),
    "rte": HubDataset(*_GLUE, "rte", 2_490, 0),
    "wnli": HubDataset(*_GLUE, "wnli", 635),
    "snli": HubDataset(
        "stanfordnlp/snli", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b", None, 550_152
    ),
    # It has no validation split; its test split has public labels.
    "ag_news": HubDataset(
        *("fancyzhx/ag_news", "eb185aade064a813bc0b7f42de02595523103ca4", None, 120_000),
        validation=("test",),
    ),
}


def locate(
    name: str, task: Task, folder: str | None, files: dict[str, object] | None
) -> dict[str, object]:
    """Name the dataset's repository and revision, or hash the saved copy `folder/name`.

    Raises StudyError for a task that is not in the table, or without such a folder.
    """
    if name not in DATASETS:
        raise StudyError(f"data.source 'hub' has no task '{name}'; {nearest(name, DATASETS)}")
    if folder is None:
        dataset = DATASETS[name]
        return {"repo": dataset.repo, "revision": dataset.revision, "config": dataset.config}
    saved = Path(folder) / name
    with system_errors(saved):
        if not (saved / "dataset_dict.json").is_file():
            raise StudyError(
                f"data.folder: '{folder}' holds no saved dataset '{name}' (a DatasetDict's "
                "save_to_disk); leave data.folder empty to read the hub"
            )
        return {"saved": str(saved), "sha256": _digest(saved)}


def _digest(saved: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in saved.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(saved)}\n".encode())
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def read_rows(name: str, task: Task, location: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of the training split, then of the validation splits.

    Raises StudyError if the dataset cannot be had, is not the pinned one, or lacks a split, a
    column or a label; its classes are not the task's, in their order; or a score is out of range.
    """
    stored, parts = _load(location), ("train", *(task.parts or ("validation",)))
    for part, hub_split in zip(parts, ("train", *DATASETS[name].validation), strict=True):
        side: Side = "train" if part == "train" else "validation"
        origin = f"{_origin(location)} split {hub_split}"
        if hub_split not in stored:
            raise StudyError(f"{origin}: is missing; found: {', '.join(sorted(stored))}")
        rows = stored[hub_split]
        for column in (*task.texts, "label"):
            if column not in rows.column_names:
                found = ", ".join(rows.column_names)
                raise StudyError(f"{origin}: column '{column}' is missing; found: {found}")
        kinds = {name: str(getattr(kind, "dtype", kind)) for name, kind in rows.features.items()}
        for column in task.texts:
            if "string" not in kinds[column]:
                raise StudyError(f"{origin}: column '{column}' is no text but {kinds[column]}")
        if not kinds["label"].startswith(("int", "float", "double")):
            raise StudyError(f"{origin}: column 'label' is no number but {kinds['label']}")
        names = getattr(rows.features["label"], "names", None)
        if task.labels and tuple(names or ()) != task.labels:
            raise StudyError(f"{origin}: its classes are {names}, expected {list(task.labels)}")
        low, high = task.score_range or (float("-inf"), float("inf"))
        if task.labels:
            low, high = -1, len(task.labels) - 1  # -1: no label, as in SNLI
        for number, row in enumerate(rows):
            label = row["label"]
            if label != label:  # not a number, which says no more than None
                label = None
            if label is not None and not low <= label <= high:
                raise StudyError(f"{origin} row {number}: label {label} is out of range")
            identity = f"{part}:{number}"
            texts = tuple(row[column] or "" for column in task.texts)
            yield Row(identity, identity, texts, label, side)


def _load(location: dict[str, Any]) -> Any:
    import datasets  # heavy, and not needed to check parameters

    datasets.disable_progress_bars()
    if "saved" in location and _digest(Path(location["saved"])) != location["sha256"]:
        raise StudyError(f"{location['saved']}: changed since params.yaml was checked; run again")
    datasets.utils.logging.set_verbosity_error()  # it warns of what is checked below
    try:
        if "saved" in location:
            return datasets.load_from_disk(location["saved"])
        if cached := _cached(location):
            return cached
        repo, config, revision = (location[key] for key in ("repo", "config", "revision"))
        stored = datasets.load_dataset(repo, config, revision=revision)
    # The libraries below raise errors of many kinds for a network, a cache or a file that fails.
    except Exception as error:
        raise StudyError(
            f"{_origin(location)}: cannot be loaded ({first_line(error)}); connect to the hub "
            "once, or save the dataset and name its folder in data.folder"
        ) from None
    # Without a network `datasets` takes whatever revision its cache holds, silently.
    for split in stored.values():
        for file in split.cache_files:
            if (found := Path(file["filename"]).parent.name) != revision:
                raise StudyError(f"{_origin(location)}: the cache holds revision {found} only")
    return stored


def _cached(location: dict[str, Any]) -> Any:
    """Return the cached dataset; without a network `datasets` would take its latest revision."""
    from datasets.config import HF_DATASETS_CACHE
    from datasets.packaged_modules.cache.cache import Cache

    repo, revision = location["repo"], location["revision"]
    owner, name = repo.split("/")
    for folder in Path(HF_DATASETS_CACHE).glob(f"{owner}___{name}/{location['config'] or '*'}/*/"):
        if (folder / revision / "dataset_info.json").is_file():
            build = {"config_name": folder.parent.name, "version": folder.name, "hash": revision}
            return Cache(repo_id=repo, dataset_name=name, **build).as_dataset()
    return None


def _origin(location: dict[str, Any]) -> str:
    if "saved" in location:
        return str(location["saved"])
    config = f" ({location['config']})" if location["config"] else ""
    return f"dataset {location['repo']}{config} at {location['revision'][:12]}"
