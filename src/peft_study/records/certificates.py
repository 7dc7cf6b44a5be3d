"""What was found of a study's methods before anything was trained: `metrics/certificates.json`.

Differences are of logits, the largest absolute one as a fraction of the largest logit, rounded to
two digits; trained and frozen tensors, and two runs of one seed, agree to the bit or not at all.
"""

from peft_study.records import Record
from peft_study.records.scores import Counts


class Merging(Record):
    """Merged against unmerged logits, and unmerged again against those before."""

    float32: float
    bfloat16: float
    restored: float


class Certificate(Record):
    """What was found of a method; a method of which less holds has no certificate.

    `closed_form` is the adapter's number of parameters by the configuration and the encoder's
    shapes, None where nothing is known to compute it by. Of `tensors` trained ones each had a
    gradient and moved, `frozen` ones stayed as they were. `ranks` are AdaLoRA's, before and after
    the steps. `power` says how far the logits moved before what follows was compared.
    """

    method: str
    trainable: Counts
    closed_form: int | None
    start: float  # against the encoder's logits
    tensors: int
    frozen: int
    hooks: tuple[str, ...]  # that were called in every step
    ranks: tuple[int, int] | None
    power: float
    own_forward: bool  # it is its own padded forward; compared is each row alone
    packed: float  # against padded
    files: float  # saved and loaded again
    library: str | None  # whose loader was used, too
    library_files: float | None
    merging: Merging | None
    unmerged: str | None  # why it does not merge


class Certificates(Record):
    """`metrics/certificates.json`: those of a study's methods, by name."""

    model: str
    tolerance: float
    steps: int
    methods: tuple[Certificate, ...]
