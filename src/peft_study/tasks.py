"""The tasks: which text columns they read, what their labels mean and how they are scored.

A task is a row of this table. Where its rows come from is a source's business
(`peft_study.sources`), how long it is trained the parameters' (`params.yaml`).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        texts: names of the one or two text columns, in the order the model reads them.
        labels: the classes in the order of their integer labels; None for a regression task,
            whose labels are floats and whose loss is the mean squared error.
        metrics: names in `peft_study.metrics`; the first decides which evaluation is best.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]

    @property
    def num_outputs(self) -> int:
        """Width of the task head: a unit per class, or one for regression."""
        return len(self.labels) if self.labels else 1

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Task":
        """Rebuild a task from a stage's configuration, which holds it in full."""
        labels = config["labels"]
        return cls(
            texts=tuple(config["texts"]),
            labels=None if labels is None else tuple(labels),
            metrics=tuple(config["metrics"]),
        )


_POLARITY = Task(texts=("text",), labels=("negative", "positive"), metrics=("accuracy", "f1"))
_RATING = Task(texts=("text",), labels=None, metrics=("pearson", "spearman"))

TASKS: dict[str, Task] = {
    "movie_polarity": _POLARITY,
    "product_polarity": _POLARITY,
    "editorial_polarity": _POLARITY,
    "tweet_polarity": _POLARITY,
    "movie_rating": _RATING,
    "product_rating": _RATING,
    "editorial_rating": _RATING,
    "tweet_rating": _RATING,
}
