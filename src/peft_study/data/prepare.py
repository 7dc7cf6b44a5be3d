"""From a source's rows to the two tokenised splits that training reads."""

import hashlib
import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peft_study.data import predictions, texts, tokens
from peft_study.data.metrics import score
from peft_study.data.sources import Row, load_source
from peft_study.data.tasks import Task
from peft_study.data.tokens import MOST_SHARED, as_read, load_tokenizer, tokenise
from peft_study.errors import StudyError, system_errors
from peft_study.files import write_json
from peft_study.stage_configs import PrepareConfig, PrepareConfigs

HELD_OUT = 0.2  # the share of a source's groups from which validation rows are drawn
MOST_ROUNDED = 0.01  # what float32 may change of a score, in deviations: a correlation's 5th digit


def prepare_all(
    configs: PrepareConfigs, tasks: Path, intermediate: Path
) -> dict[Path, dict[str, Any]]:
    """Prepare all tasks below `tasks`, and the intermediate one; return each folder's summary.

    Raises as `prepare`, `check_intermediate` and `predictions.check`, and StudyError if nothing can
    be written.
    """
    wanted = {tasks / name: config for name, config in configs.tasks.items()}
    if configs.intermediate:
        wanted[intermediate] = configs.intermediate
    wanted |= {Path(folder): config for folder, config in configs.apart.items()}
    with system_errors(tasks):
        summaries = {folder: prepare(config, folder) for folder, config in wanted.items()}
        for folder, of in configs.trials.items():
            summaries[Path(folder)] = prepare(of.task, Path(folder), of.share)
        check_intermediate(intermediate, {name: tasks / name for name in configs.starters})
        for recipe, by_task in configs.elsewhere.items():
            for name, settings in by_task.items():
                predictions.check(
                    recipe, settings, name, configs.tasks[name].definition, tasks / name
                )
        if not configs.intermediate:
            write_json(intermediate / "summary.json", {})
    return summaries


def prepare_apart(apart: Mapping[str, PrepareConfig]) -> None:
    """Prepare what no task of the study is, each in its folder. Raises as `prepare_all`."""
    for folder, config in apart.items():
        with system_errors(Path(folder)):
            prepare(config, Path(folder))


def prepare(
    config: PrepareConfig, directory: Path, share_of_training: float | None = None
) -> dict[str, Any]:
    """Read, clean, split and tokenise one task; write it below `directory`; return its summary.

    `directory` receives a `datasets` folder with the splits `train` and `validation`, columns
    `id`, `input_ids` (list of int, special tokens included), `token_type_ids` where the model has
    them, and `label` (int class or float score), and `summary.json`: rows, rows dropped and why,
    a hash of the row ids, label counts, token-length percentiles, the baseline's scores, and how
    many rows, if any, hold only signs that the tokeniser does not know.

    Each of `config.seeds` has the same in a folder `seed-<n>`, with a draw of training rows of its
    own and the same rows held out; the summary of `directory` then has `mean_overlap_of_draws`, the
    mean share of rows that two draws have in common (None for a single seed). The draw in
    `directory` itself, on which costs are measured, is the one without seeds. The task's baseline
    is the constant of that draw: it stays the same when seeds are added.

    Raises StudyError if the source fails, holds too few rows or one class only, much of the
    validation split stands in the training split, the tokeniser knows no sign of most rows, or
    float32 does not tell the scores apart; so does every draw.
    """
    task, encoder = config.definition, config.encoder
    found = list(load_source(config.source).read_rows(config.task, task, config.location))
    rows, dropped = clean(found, task)
    repeated, official = shared_rows(found, rows)
    if repeated > MOST_SHARED * official:
        raise StudyError(
            f"{config.key}: {repeated} of the {official} rows of the validation split stand in the "
            "training split too; give other files"
        )
    asked = rows, config.train_rows, config.validation_rows, config.split_seed
    try:
        draws = {seed: split(*asked, seed) for seed in config.seeds}
        shared = split(*asked)
        if share_of_training is not None:
            shared = split_training(shared[0], share_of_training, config.split_seed)
    except StudyError as error:
        raise StudyError(f"{config.key}.{error}") from None
    tokenizer = load_tokenizer(encoder.name, encoder.revision)
    for stale in directory.glob("seed-*"):  # a run would take it for its own
        shutil.rmtree(stale)
    for seed, sides in draws.items():
        own = replace(config, key=f"{config.key}, the draw of seed {seed}")
        summary = _write_splits(own, directory / f"seed-{seed}", sides, dropped, tokenizer)
        write_json(directory / f"seed-{seed}/summary.json", summary)
    summary = _write_splits(config, directory, shared, dropped, tokenizer)
    if draws:
        summary["mean_overlap_of_draws"] = mean_overlap([train for train, _ in draws.values()])
    write_json(directory / "summary.json", summary)
    return summary


def _write_splits(
    config: PrepareConfig,
    directory: Path,
    sides: tuple[list[Row], list[Row]],
    dropped: dict[str, int],
    tokenizer: Any,
) -> dict[str, Any]:
    """Tokenise the rows of both sides, write and verify them; return their summary."""
    task, encoder = config.definition, config.encoder
    read = (tokenise(side, tokenizer, config.max_length) for side in sides)
    train, held_out = (as_read(table, encoder) for table in read)
    if (len(train), len(held_out)) != tuple(map(len, sides)):
        raise RuntimeError(f"{directory}: rows were lost when they were tokenised")
    leaks = tokens.leaks(config, sides, (train, held_out), tokenizer)
    leaked = dropped["also_in_validation"] + sum(leaks)
    tables = {"train": train.filter(pc.invert(pa.array(leaks))), "validation": held_out}
    labels = {name: table["label"].to_pylist() for name, table in tables.items()}
    kind = "class" if task.labels else "score"
    for name, values in labels.items():
        if len(set(values)) < 2:
            raise StudyError(f"{config.key}: the {name} split holds one {kind} only")
        if not task.labels:
            _check_scores(f"{config.key}: the {name} split", values)
    datasets.disable_progress_bars()
    # A fixed fingerprint: the default one is random, and would change the bytes of every run.
    splits = {n: datasets.Dataset(table, fingerprint="prepared") for n, table in tables.items()}
    datasets.DatasetDict(splits).save_to_disk(str(directory))
    verify(directory, [*sides[0], *sides[1]], tokenizer, config.max_length)
    unknown = {name: int(tokens.unknown(table, tokenizer).sum()) for name, table in tables.items()}
    return {
        "task": config.task,
        "dropped": dropped | {"also_in_validation": leaked},
        "baseline": baseline(task, **labels),
        "splits": {name: _describe(task, table) for name, table in tables.items()},
        **({"unknown_to_tokeniser": unknown} if any(unknown.values()) else {}),
    }


def _check_scores(place: str, scores: list[float]) -> None:
    exact = np.asarray(scores, np.float64)
    changed = np.abs(exact - exact.astype(np.float32)).max()
    if changed > MOST_ROUNDED * exact.std():
        raise StudyError(
            f"{place} has scores from {exact.min():.12g} to {exact.max():.12g}, which float32, in "
            "which models compute, does not tell apart; subtract their mean, or scale them"
        )


def clean(rows: Iterable[Row], task: Task) -> tuple[list[Row], dict[str, int]]:
    """Drop rows that cannot be used, and those that would leak; count each reason.

    Dropped are rows without a text that can be seen; rows without a label, None or -1, GLUE's and
    SNLI's sign for it; and rows whose texts differ from another's in case, spaces, punctuation and
    order alone: all but the first of them, or, where the source says which rows are held out,
    training rows that are held out too (repeats within one of its splits stay, as in the published
    results).
    """
    kept: list[tuple[Row, tuple[str, ...]]] = []
    seen: set[tuple[str, ...]] = set()
    dropped = dict.fromkeys(("missing_label", "empty_text", "repeated_text"), 0)
    for row in rows:
        spelling = _spelling(row)
        if any(map(texts.is_empty, row.texts)):
            dropped["empty_text"] += 1
        elif row.split is None and spelling in seen:
            dropped["repeated_text"] += 1
        elif row.label is None or (task.labels and row.label == -1):
            dropped["missing_label"] += 1
        else:
            kept.append((row, spelling))
        if row.split != "train":
            seen.add(spelling)
    usable = [row for row, spelling in kept if row.split != "train" or spelling not in seen]
    dropped["also_in_validation"] = len(kept) - len(usable)
    return usable, dropped


def shared_rows(found: list[Row], usable: list[Row]) -> tuple[int, int]:
    """Count the usable held-out rows that training rows repeat, and the usable held-out rows.

    `found` are the rows of a source, `usable` what `clean` has left of them.
    """
    left = {row.id for row in usable}
    gone = [row for row in found if row.split == "train" and row.id not in left]
    repeated = {_spelling(row) for row in gone if row.label is not None}
    held_out = [row for row in usable if row.split == "validation"]
    return sum(bool(repeated) and _spelling(row) in repeated for row in held_out), len(held_out)


def _spelling(row: Row) -> tuple[str, ...]:
    return tuple(sorted(map(texts.spelling, row.texts)))


def split(
    rows: list[Row],
    train_rows: int | None,
    validation_rows: int | None,
    seed: int,
    draw: int | None = None,
) -> tuple[list[Row], list[Row]]:
    """Draw a training and a validation split that share no row and no group.

    Rows whose source does not say on which side they are are placed by a hash of the seed and the
    group, so a group that one task holds out, no other task with that seed trains on: not even the
    intermediate task. The hash also decides which rows are drawn first; None takes all. With the
    seed of a run as `draw`, the training rows are those that a hash of both seeds puts first, and
    the validation rows are the same.
    Raises StudyError if there are fewer rows than asked for, or every `draw` would take them all.
    """

    def place(*key: object) -> float:
        digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    places = {row.group: place(seed, row.group) for row in rows}
    sides: dict[str, list[Row]] = {"train": [], "validation": []}
    for row in sorted(rows, key=lambda row: (places[row.group], row.group)):
        sides[row.split or ("validation" if places[row.group] < HELD_OUT else "train")].append(row)
    if draw is not None:
        if train_rows is None or train_rows >= len(sides["train"]):
            raise StudyError(
                f"train_rows: got {train_rows}; must be below the {len(sides['train'])} that are "
                "there, so that data.resample 'per_seed' draws other rows for each seed; draw "
                "fewer, or set data.resample to 'none'"
            )
        sides["train"].sort(key=lambda row: (place(seed, draw, row.group), row.group))
    for name, wanted in (("train", train_rows), ("validation", validation_rows)):
        found = len(sides[name])
        if wanted and found < wanted:
            allowed = f"must be at most the {found} that are there"
            raise StudyError(f"{name}_rows: got {wanted}; {allowed}")
        if found < 2:
            raise StudyError(f"{name}_rows: {found} usable rows are left; at least 2 are needed")
    return sides["train"][:train_rows], sides["validation"][:validation_rows]


def split_training(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out a share of training rows, whole groups, as a hash of the seed and the group says.

    Raises StudyError if fewer than two rows are on either side.
    """

    def place(group: str) -> bytes:
        return hashlib.sha256(f"trials:{seed}:{group}".encode()).digest()

    sides: tuple[list[Row], list[Row]] = [], []
    wanted = round(share * len(rows))
    for row in sorted(rows, key=lambda row: (place(row.group), row.group)):
        same = bool(sides[1]) and sides[1][-1].group == row.group
        sides[len(sides[1]) < wanted or same].append(row)
    if min(map(len, sides)) < 2:
        raise StudyError(f"train_rows: tune.rows {share} leaves fewer than two rows on one side")
    return sides


def verify(directory: Path, rows: list[Row], tokenizer: Any, max_length: int) -> None:
    """Read back what was written and check each label, and a sample of texts, against its row.

    A label that has left its text, which raises RuntimeError here, trains a model on noise, and no
    later stage could tell.
    """
    source = {row.id: row for row in rows}
    if len(source) != len(rows):
        raise RuntimeError(f"{directory}: two rows have the same id")
    for name, stored in datasets.load_from_disk(str(directory)).items():
        for identity, label in zip(stored["id"], stored["label"], strict=True):
            if (own := source[identity].label) != label:
                found = f"row {identity} has label {label}, its source {own}"
                raise RuntimeError(f"{directory} {name}: {found}")
        for row in stored.select(range(0, len(stored), max(1, len(stored) // 500))):
            pair = source[row["id"]].texts
            expected = tokenizer(*pair, truncation=True, max_length=max_length)["input_ids"]
            if row["input_ids"] != expected:
                raise RuntimeError(f"{directory} {name}: row {row['id']} is not its source's text")


def check_intermediate(intermediate: Path, prepared: dict[str, Path]) -> None:
    """Check that the intermediate task trains on no row that a task which starts from it holds out.

    `prepared` has the folders of these tasks by name. Raises StudyError where it does, as where
    both were made from one file.
    """
    if not prepared:
        return
    trained = set(map(tuple, datasets.load_from_disk(str(intermediate))["train"]["input_ids"]))
    for name, folder in prepared.items():
        held_out = datasets.load_from_disk(str(folder))["validation"]["input_ids"]
        if shared := sum(tuple(ids) in trained for ids in held_out):
            raise StudyError(
                f"mnli_init: the intermediate task trains on {shared} rows that task '{name}' "
                f"holds out; give other files, or take '{name}' out of mnli_init.tasks"
            )


def baseline(task: Task, train: list[float], validation: list[float]) -> dict[str, float]:
    """Score a constant prediction: the majority class of `train`, or its mean for regression."""
    constant = Counter(train).most_common(1)[0][0] if task.labels else float(np.mean(train))
    return score(task.metrics, np.full(len(validation), constant), np.asarray(validation))


def mean_overlap(draws: list[list[Row]]) -> float | None:
    """Return the mean share of rows that two draws of one size have in common; None for one draw.

    Scores vary less over such draws than over new samples; the variance of a mean would be smaller
    by this very share.
    """
    drawn = [{row.id for row in draw} for draw in draws]
    shares = [len(one & other) / len(one) for one, other in itertools.combinations(drawn, 2)]
    return float(np.mean(shares)) if shares else None


def _describe(task: Task, table: pa.Table) -> dict[str, object]:
    ids, labels = table["id"].to_pylist(), table["label"].to_pylist()
    lengths = pc.list_value_length(table["input_ids"]).to_numpy()
    counts = {name: labels.count(index) for index, name in enumerate(task.labels or ())}
    scores = {"min": min(labels), "mean": float(np.mean(labels)), "max": max(labels)}
    return {
        "rows": len(labels),
        "sha256_of_ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "labels": counts or scores,
        "token_length_percentiles": {
            str(percent): float(np.percentile(lengths, percent))
            for percent in (5, 25, 50, 75, 95, 100)
        },
    }
