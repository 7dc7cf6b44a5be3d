"""What a difference shows, in words, and what would settle it."""

from peft_study.findings.wording import GAP, TRY, needed, percent
from peft_study.records.scores import Difference
from peft_study.records.study import StudyInfo

SAID = {"equivalent": "is equivalent to", "better": "is better than", "worse": "is worse than"}
SAID["undecided"] = "cannot be told from, nor called equivalent to,"
SAID["unlearned"] = "cannot be compared, since one has not learned, with"


def conclusion(difference: Difference, study: StudyInfo) -> tuple[str, str]:
    """Return what a difference between two methods shows, as a key of `SAID` and in words.

    Tests corrected for the questions of the family decide, at 5%; equivalence goes first.
    """
    margin = f"±{percent(difference.margin)} points"
    if difference.unlearned:
        names = " and ".join(study.label(name) for name in difference.unlearned)
        have = "has" if len(difference.unlearned) == 1 else "have"
        return "unlearned", f"decides nothing: {names} {have} not learned; {TRY}"
    if difference.low is None or difference.high is None or difference.mean is None:
        return "undecided", "undecided: there is no interval without two seeds that both have"
    apart = ("better" if difference.mean > 0 else "worse") if difference.differs else ""
    if difference.equivalent:
        return "equivalent", f"equivalent within {margin}{', though not zero' if apart else ''}"
    if apart:
        return apart, apart
    words = f"undecided: neither a difference nor equivalence within {margin}"
    if not difference.low <= 0 <= difference.high:
        words += ", after the correction for several questions"
    return "undecided", words


def settles(difference: Difference) -> str:
    """Say how many seeds or rows would settle an undecided difference; a gap where it is."""
    if difference.unlearned:
        return "learning"
    if difference.equivalent or difference.differs:
        return GAP
    if difference.chance is None:
        return "two seeds that both have"
    words = needed(difference.seeds_needed, difference.rows_needed)
    return words.lower() or "only more of both, seeds and rows"


def p_shown(value: float | None) -> str:
    """Show a p, or a gap where there is none."""
    return GAP if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
