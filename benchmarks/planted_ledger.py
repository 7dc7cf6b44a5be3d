"""Does a ledger find a truth that was planted in it? A simulation.

A study and eight settings of it, each with five seeds, answer the same held-out rows. A row is
answered right where level + row + seed + rest > 0, all normal, as in `coverage.py`. One setting is
planted: it raises the accuracy, and the others do nothing. The effects of rows of any two settings
correlate, and so do those of one seed. The published row is what five other seeds of the planted
setting score on the same rows: their median, rounded as papers print it, with their standard
deviation or without. Counted is how often the ledger names the planted setting first, how often the
interval of its share of the gap holds the true 100%, and how often any other setting is called
non-zero. Nothing is trained. Shares are in per cent, those of intervals of the data sets that have
one: a gap that is not told from zero is not divided by. What misses what is asked is marked `!`; of
smaller effects it is not asked that they be named.

    python benchmarks/planted_ledger.py --data-sets 2000
"""

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from coverage import marked, table
from peft_study.errors import run_command
from peft_study.findings.ledger import ledger
from peft_study.findings.results import PublishedRow
from peft_study.records.scores import Cell, Evaluation, RunScores
from peft_study.records.study import (
    DataInfo,
    InitInfo,
    MethodInfo,
    ModelInfo,
    StudyInfo,
    SweepInfo,
    TaskInfo,
)
from peft_study.records.variants import Ledger, LedgerEntry

SETTINGS = tuple(f"setting {number}" for number in range(1, 9))
PLANTED = SETTINGS[0]
SEEDS, ROWS = 5, 400
ACCURACY = 0.70  # of the study
EFFECTS = (0.06, 0.08, 0.12)  # what the planted setting adds
RATIO = 0.005  # of the variance of seeds to that of rows
ALIKE = 0.8  # the correlation of two settings' effects of rows
PAIRED = 0.3  # and of their effects of seeds of the same number
Array = NDArray[np.float64]

STUDY = StudyInfo(
    study="planted",
    model=ModelInfo("made-up", None, 64),
    data=DataInfo("files", None, 0),
    seeds=tuple(range(SEEDS)),
    methods=(MethodInfo("lora", "LoRA", "lora", "lora", 0, True, {}, kind="lora"),),
    tasks=(TaskInfo("rte", "accuracy", ("no", "yes")),),
    report="last",
    mnli_init=InitInfo("none", "mnli", ()),
    sweep=SweepInfo("rte", (), ()),
    equivalence_margin=0.02,
    iso_margin=0.005,
    published=("made up",),
    params={},
    packages={},
    known_labels={},
)
ENTRIES = (
    LedgerEntry("lora", "rte", "study", (), "study"),
    *(LedgerEntry("lora", "rte", "alone", (name,), name) for name in SETTINGS),
)
PLACES = ("study", *SETTINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-sets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = []
    for effect, printed in product(EFFECTS, (True, False)):
        found = counts(arguments.data_sets, arguments.seed, effect, printed)
        named, wrong = (100 * found[key] / arguments.data_sets for key in ("named", "wrong"))
        covered = 100 * found["covered"] / max(1, found["covered"] + found["missed"])
        least = 95 if effect == max(EFFECTS) else 0
        shown = marked(named, least, 100), marked(covered, 93, 97), marked(wrong, 0, 7)
        without = 100 * found["without"] / arguments.data_sets
        about = f"{100 * effect:.0f} points", "printed" if printed else "not printed"
        lines.append((*about, *shown, f"{without:.1f}"))
    print(f"{arguments.data_sets} data sets, {SEEDS} seeds, {ROWS} rows\n")
    heads = "planted", "published deviation", "named first", "interval holds 100%"
    table((*heads, "another non-zero", "no interval"), lines)


def counts(data_sets: int, seed: int, effect: float, printed: bool) -> Counter[str]:
    """Count in how many data sets the ledger is right; `printed` tells of the deviation."""
    found: Counter[str] = Counter()
    for judged in ledgers(data_sets, seed, effect, printed):
        (gap,) = judged.gaps
        share = next(of for of in gap.shares if of.settings == (PLANTED,))
        found["named"] += gap.names[:1] == (PLANTED,)
        found["wrong"] += any(e.differs for e in judged.effects if e.settings != (PLANTED,))
        if share.share_low is None or share.share_high is None:
            found["without"] += 1
        else:
            held = share.share_low <= 1 <= share.share_high
            found["covered" if held else "missed"] += 1
    return found


def ledgers(data_sets: int, seed: int, effect: float, printed: bool) -> Iterator[Ledger]:
    """Draw data sets, and yield the ledger of each."""
    rng = np.random.default_rng(seed)
    for _ in range(data_sets):
        answered, others = answers(rng, effect)
        values = dict(zip(PLACES, answered, strict=True))
        cells = {place: cell(place, of.mean(axis=1)) for place, of in values.items()}
        scores = [float(score) for score in others.mean(axis=1)]
        ours = statistics.median(values["study"].mean(axis=1))
        row = published(scores, float(ours), printed)

        def values_of(of: Cell, values: dict[str, Array] = values) -> dict[str, Array]:
            return {"accuracy": values[of.variant]}

        yield ledger(STUDY, ENTRIES, cells, values_of, lambda _: IDS, [row])


IDS = [str(number) for number in range(ROWS)]


def answers(rng: np.random.Generator, effect: float) -> tuple[Array, Array]:
    """Return right answers, of shape (settings, seeds, rows), and those of the published seeds."""
    count = len(PLACES)
    normal = rng.standard_normal
    rows = math.sqrt(ALIKE) * normal((1, 1, ROWS)) + math.sqrt(1 - ALIKE) * normal((count, 1, ROWS))
    own = math.sqrt(1 - PAIRED) * normal((count, SEEDS, 1))
    seeds = math.sqrt(RATIO) * (math.sqrt(PAIRED) * normal((1, SEEDS, 1)) + own)
    latent = rows + seeds + normal((count, SEEDS, ROWS))
    at = PLACES.index(PLANTED)
    others = rows[at] + math.sqrt(RATIO) * normal((SEEDS, 1)) + normal((SEEDS, ROWS))
    level = np.full(count, _level(ACCURACY))
    level[at] = _level(ACCURACY + effect)
    right = latent + level[:, None, None] > 0
    return right.astype(np.float64), (others + level[at] > 0).astype(np.float64)


def _level(accuracy: float) -> float:
    return float(stats.norm.ppf(accuracy)) * math.sqrt(2 + RATIO)


def cell(place: str, scores: Array) -> Cell:
    """Return the cell of a setting from the score of each seed."""
    found = [Evaluation(1, 1.0, {"accuracy": float(score)}) for score in scores]
    runs = {str(n): RunScores(of, of, of, None, True) for n, of in enumerate(found)}
    return Cell("rte", "lora", "last", {"accuracy": 0.5}, {}, None, runs, variant=place)


def published(scores: list[float], ours: float, printed: bool) -> PublishedRow:
    """Return the row that prints the median of scores, and perhaps their deviation."""
    std = round(statistics.stdev(scores), 3) if printed else None
    return PublishedRow(
        source="made up",
        table="1",
        citation="a planted truth",
        model="made-up",
        method="lora",
        weights=(),
        rank=None,
        task="rte",
        metric="accuracy",
        is_fraction=True,
        published=round(statistics.median(scores), 3),
        published_std=std,
        published_seeds=len(scores) if printed else None,
        ours=ours,
        ours_std=None,
        n=SEEDS,
        difference=None,
        like=True,
        note=None,
    )


if __name__ == "__main__":
    run_command(main)
