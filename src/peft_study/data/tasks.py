"""The tasks: which text columns they read, what their labels mean and how they are scored.

A task is a row of this table. Where its rows come from is a source's business
(`peft_study.data.sources`), how long it is trained the parameters' (`params.yaml`).
"""

from peft_study.records import Record


class Task(Record):
    """One task.

    Attributes:
        texts: names of the one or two text columns, in the order the model reads them.
        labels: the classes in the order of their integer labels; None for a regression, whose
            labels are floats and whose loss is the mean squared error.
        metrics: names in `peft_study.data.metrics`; the first decides which evaluation is best.
        score_range: least and greatest label of a regression task; None for classes, or where
            any finite score is allowed.
        parts: what the validation split is made of, where it has parts that are also scored
            apart; the ids of their rows start with the part's name and a colon.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    score_range: tuple[float, float] | None = None
    parts: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Width of the task head: a unit per class, or one for regression."""
        return len(self.labels) if self.labels else 1


def classification_metrics(classes: int, main: str = "accuracy") -> tuple[str, ...]:
    """Return the metrics of a classification: the main one, accuracy, precision, recall and F1.

    The last three are those of class 1 where there are two classes, which is GLUE's convention, and
    unweighted means over the classes where there are more. Chu et al., section 3.4, report them.
    """
    mean = "_macro" if classes > 2 else ""
    return tuple(dict.fromkeys((main, "accuracy", *(f"{m}{mean}" for m in PER_CLASS))))


PER_CLASS = ("precision", "recall", "f1")
_PAIR = ("sentence1", "sentence2")
_NLI = ("premise", "hypothesis")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI_LABELS = ("entailment", "neutral", "contradiction")
DOMAINS = ("movie", "product", "editorial", "tweet")
_TWO, _MORE = classification_metrics(2), classification_metrics(3)
_POLARITY = Task(("text",), ("negative", "positive"), _TWO)
_RATING = Task(("text",), None, ("pearson", "spearman"), score_range=(-4.0, 4.0))

# GLUE's tasks have GLUE's metrics (Wang et al. 2018, table 1), and more; the first is the one that
# the LoRA paper's table 2 reports. Its MNLI accuracy is over the matched and mismatched rows
# together.
TASKS: dict[str, Task] = {
    "cola": Task(
        ("sentence",), ("unacceptable", "acceptable"), classification_metrics(2, "matthews")
    ),
    "sst2": Task(("sentence",), ("negative", "positive"), _TWO),
    "mrpc": Task(_PAIR, ("not_equivalent", "equivalent"), _TWO),
    "qqp": Task(("question1", "question2"), ("not_duplicate", "duplicate"), _TWO),
    "stsb": Task(_PAIR, None, ("pearson", "spearman"), score_range=(0.0, 5.0)),
    "mnli": Task(_NLI, _NLI_LABELS, _MORE, parts=("matched", "mismatched")),
    "qnli": Task(("question", "sentence"), _ENTAILMENT, _TWO),
    "rte": Task(_PAIR, _ENTAILMENT, _TWO),
    "wnli": Task(_PAIR, ("not_entailment", "entailment"), _TWO),
    "snli": Task(_NLI, _NLI_LABELS, _MORE),
    "ag_news": Task(("text",), ("World", "Sports", "Business", "Sci/Tech"), _MORE),
    **{f"{domain}_polarity": _POLARITY for domain in DOMAINS},
    **{f"{domain}_rating": _RATING for domain in DOMAINS},
}
