"""When two texts or labels are the same, and when a text is empty."""

import re
import unicodedata

# What Unicode lets a reader leave out (Default_Ignorable_Code_Point) though it is a letter or a
# mark, and the blank pattern of Braille. The rest has a category of its own.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\ufe00-\ufe0f"
    "\U000e0100-\U000e01ef]"
)


class _Compared(dict[int, int | None]):
    """What `str.translate` makes of a sign: nothing of punctuation and spaces, else the sign."""

    def __missing__(self, code: int) -> int | None:
        sign = chr(code)
        ignored = sign.isspace() or unicodedata.category(sign)[0] in "PZ"
        self[code] = kept = None if ignored else code
        return kept


_COMPARED = _Compared()


def spelling(text: str) -> str:
    """Return what is the same of two texts that differ in case, punctuation and spaces alone.

    All else is kept: marks, which are the vowels of many scripts, and symbols, such as emoji. What
    Unicode calls canonically equivalent, the two forms of é, is the same. Case is that of single
    letters: ß is not ss. A pair of < and > encloses, as brackets do; one alone compares, and is
    kept. A text of punctuation alone, say ":-)", is its own spelling.
    """
    lowered = unicodedata.normalize("NFD", text).lower()
    return _without_angles(lowered.translate(_COMPARED)) or "".join(lowered.split())


def _without_angles(text: str) -> str:
    """Leave out each pair of < and > in one pass, however deep they lie in one another."""
    if "<" not in text:
        return text
    opened: list[int] = []
    enclosing: set[int] = set()
    for place, sign in enumerate(text):
        if sign == "<":
            opened.append(place)
        elif sign == ">" and opened:
            enclosing |= {opened.pop(), place}
    return "".join(sign for place, sign in enumerate(text) if place not in enclosing)


def is_empty(text: str) -> bool:
    """Say whether a text holds nothing but spaces, control characters and others without a form."""
    return all(
        sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf") or _UNSEEN.match(sign)
        for sign in text
    )


def canonical(value: object) -> str:
    """Return a label or a column's name as it is compared: without spaces around it, in NFC."""
    return unicodedata.normalize("NFC", str(value).strip())


def shown(value: object) -> str:
    """Return a value from a file for a message: on one line, and cut if it is long."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(cut) if isinstance(value, str) else cut
