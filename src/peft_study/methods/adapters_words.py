"""The words of the `adapters` library that a study may declare a method by, and those it may not.

It imports neither the library nor PyTorch.
"""

import re

from peft_study.errors import nearest
from peft_study.records import Record


class Word(Record):
    """A configuration that the library has a word for: see `peft_types.PeftType`.

    `packs` tells whether the packed step reaches all that it adds; what is beside the modules which
    that calls is trained through the model's own forward.
    """

    paper: str
    family: str = "adapter"
    needs: str = ""
    packs: bool = True
    merges: bool = False
    identity: bool = True


_HOULSBY, _PFEIFFER = "Houlsby et al. 2019, section 2.1", "Pfeiffer et al. 2021, section 2"
_HE, _COMPACTER = "He et al. 2022, section 3", "Karimi Mahabadi et al. 2021, section 4"
_REFT, _PREFIX = "Wu et al. 2024 (ReFT), section 3.2", "Li and Liang 2021, section 4"
_TIED = "tied_weights=True unless suffix_positions is set: else a half of it is never used"
WORDS: dict[str, Word] = {
    "seq_bn": Word(f"{_PFEIFFER}; AdapterP of Hu et al. 2021", identity=False),
    "double_seq_bn": Word(f"{_HOULSBY}; AdapterH of Hu et al. 2021", identity=False),
    "seq_bn_inv": Word("Pfeiffer et al. 2020 (MAD-X), section 3", identity=False),
    "double_seq_bn_inv": Word("Pfeiffer et al. 2020 (MAD-X), section 3", identity=False),
    "par_bn": Word(f"{_HE}: parallel adapters"),
    "scaled_par_bn": Word(f"{_HE}: parallel adapters with a learnt scaling"),
    "compacter": Word(_COMPACTER, packs=False, identity=False),
    "compacter++": Word(_COMPACTER, packs=False, identity=False),
    "lora": Word("Hu et al. 2021, section 4.1", "lora"),
    "dora": Word("Liu et al. 2024 (DoRA), section 4", "lora"),
    "ia3": Word("Liu et al. 2022 (IA3), section 3.3", "scaling", packs=False),
    "loreft": Word(_REFT, "representation", _TIED, packs=False, identity=False),
    "noreft": Word(
        f"{_REFT}: without orthogonality", "representation", _TIED, packs=False, identity=False
    ),
    "direft": Word(
        f"{_REFT}: without subtraction", "representation", _TIED, packs=False, identity=False
    ),
    "prefix_tuning": Word(_PREFIX, "prefix", packs=False, identity=False),
    "prefix_tuning_flat": Word(_PREFIX, "prefix", packs=False, identity=False),
    "mam": Word(f"{_HE}: mix-and-match", "prefix", packs=False, identity=False),
}
_TRAINED = "the library trains the matrices that VeRA keeps as drawn; PEFT's VERA does not"
REFUSED: dict[str, str] = {
    "dvora": _TRAINED,
    "unipelt": "its gates read padding too, so that a text's score hangs on others of its batch",
    "vera": _TRAINED,
    "mtl_lora": "it shares weights between tasks, of which a run has one",
    "prompt_tuning": "its texts become longer than the encoder's, which no mask here knows of",
}


def needs_own_forward(config: str) -> bool:
    """Say whether the packed step would miss what a configuration, which is sound, adds."""
    return not all(WORDS[word_of(part)].packs for part in config.split("|"))


def word_of(config: str) -> str:
    """Return the word a configuration begins with: `seq_bn` of `seq_bn[reduction_factor=8]`."""
    return re.split(r"[\[|]", config, maxsplit=1)[0].strip()


def problem(config: str) -> str | None:
    """Say what is wrong with the words of a configuration, as far as it is known without trying."""
    for part in config.split("|"):
        word = word_of(part)
        if word in REFUSED:
            return f"got '{word}', which cannot be declared: {REFUSED[word]}"
        if word not in WORDS:
            return f"got '{word}'; {nearest(word, WORDS)}"
    return None
