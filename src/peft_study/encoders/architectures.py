"""What the study knows about encoder architectures: canonical weight names and task heads.

The canonical names are those of the LoRA paper's section 5 and Table 6: `query`, `key`, `value`
and `output` (W_q, W_k, W_v, W_o), the four square projections of a self-attention layer.
"""

from dataclasses import dataclass

from peft_study.errors import StudyError, nearest

WEIGHTS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class Architecture:
    """Module names of one architecture.

    Attributes:
        base: attribute of the classifier that holds the pretrained encoder.
        projections: canonical weight name to the module's path inside an encoder layer.
        head: modules of the classifier that pre-training does not provide. DeBERTa-v2's pooler is
            one of them, BERT's is not: its checkpoints carry it.
    """

    base: str
    projections: dict[str, str]
    head: tuple[str, ...]


_BERT_PROJECTIONS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("bert", _BERT_PROJECTIONS, ("classifier",)),
    "roberta": Architecture("roberta", _BERT_PROJECTIONS, ("classifier",)),
    "deberta-v2": Architecture(
        "deberta",
        {
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "output": "attention.output.dense",
        },
        ("pooler", "classifier"),
    ),
}


def architecture(model_type: str) -> Architecture:
    """Return the names of `model_type`, as in a model's configuration file.

    Raises:
        StudyError: the architecture is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise StudyError(
            f"architecture '{model_type}' has no known weight names; "
            + nearest(model_type, ARCHITECTURES)
        )
    return ARCHITECTURES[model_type]
