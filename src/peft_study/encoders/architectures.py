"""What the study knows about encoder architectures: canonical weight names and task heads.

The canonical names are those of the LoRA paper's section 5 and Table 6: `query`, `key`, `value`
and `output` (W_q, W_k, W_v, W_o), the four square projections of a self-attention layer.
"""

from typing import Literal

from peft_study.errors import StudyError, nearest
from peft_study.records import Record

Weight = Literal["query", "key", "value", "output"]
WEIGHTS: tuple[Weight, ...] = ("query", "key", "value", "output")


class Architecture(Record):
    """What the study needs to know of one architecture, apart from its `config.json`.

    Attributes:
        base: attribute of the classifier that holds the pretrained encoder.
        projections: canonical weight name to the module's path inside an encoder layer.
        head: modules of the classifier that pre-training does not provide. DeBERTa-v2's pooler is
            one of them, BERT's is not: its checkpoints carry it.
        output: path of the head's last layer, whose width is the task's.
        pooler: path of what the classifier reads through, dropout after it; None where the
            classifier reads the encoder's first token itself.
        positions_after_padding: whether positions are counted from the padding index on, which
            leaves fewer of them for tokens.
    """

    base: str
    projections: dict[str, str]
    head: tuple[str, ...]
    output: str
    pooler: str | None
    positions_after_padding: bool = False


def _projections(ending: str) -> dict[str, str]:
    inner = {name: f"attention.self.{name}{ending}" for name in ("query", "key", "value")}
    return inner | {"output": "attention.output.dense"}


ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("bert", _projections(""), ("classifier",), "classifier", "bert.pooler"),
    "roberta": Architecture(
        *("roberta", _projections(""), ("classifier",), "classifier.out_proj", None),
        positions_after_padding=True,
    ),
    "deberta-v2": Architecture(
        "deberta", _projections("_proj"), ("pooler", "classifier"), "classifier", "pooler"
    ),
}


def architecture(model_type: str) -> Architecture:
    """Return the row of `model_type`, as in `config.json`; raise StudyError if there is none."""
    if model_type not in ARCHITECTURES:
        known = nearest(model_type, ARCHITECTURES)
        raise StudyError(f"architecture '{model_type}' has no known weight names; {known}")
    return ARCHITECTURES[model_type]
