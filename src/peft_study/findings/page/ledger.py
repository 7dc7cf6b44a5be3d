"""What the page says of the ledger: what a reproduction hangs on, in sentences and tables."""

from collections.abc import Collection, Sequence

from peft_study.findings import wording
from peft_study.findings.page import papers
from peft_study.findings.page.table import Table
from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, TRY, interval, percent, points
from peft_study.records.study import StudyInfo
from peft_study.records.variants import Effect, Ledger, PublishedGap, Share

HANGS = "What does the reproduction hang on?"
SOURCE = "metrics/ledger.json"


def ledger_sentences(results: Results) -> list[str]:
    """Say what explains the gaps to published numbers, and what else settings change."""
    study, found = results.study, results.ledger
    if found is None:
        return []
    said: list[str] = []
    for method, task in dict.fromkeys((of.method, of.task) for of in found.effects):
        effects = [of for of in found.effects if (of.method, of.task) == (method, task)]
        gaps = [of for of in found.gaps if (of.method, of.task) == (method, task)]
        for gap in gaps:
            said += _explained(gap, effects, study)
        name, clear = f"{study.label(method)} on {task}", [gap for gap in gaps if gap.clear]
        told = {name for gap in clear for name in gap.names}
        said += _alone(name, [of for of in effects if of.kind == "alone"], told, bool(clear))
        said += [_combined(name, of) for of in effects if of.kind != "alone" and of.n]
    return [*said, *_absent(found, study)]


def ledger_tables(results: Results) -> list[Table]:
    """Return the table of effects, and that of the gaps to published numbers."""
    effects, gaps = papers.ledger(results), papers.ledger_gaps(results)
    seeds = [of.n for of in results.ledger.effects] if results.ledger else []
    n = wording.counted(seeds or [0], "seed")
    notes = (
        "Points, paired by seed and row, of scores of rows that chose no evaluation; intervals are "
        "over seeds and held-out rows. p: corrected (Holm) for all single settings, and for all "
        "combinations. A combination, and what of it is beyond the sum of its settings' own "
        "effects, is judged on the half of the rows that did not choose it.",
    )
    about = (
        "Points, of scores as papers report them, means over seeds; published is the number as "
        "printed. Intervals are of seeds alone: the rows are taken to be those of the published "
        "result, and where the study holds out others the gap is that of these rows. The share's "
        "interval is Fieller's; without one the gap is not told from zero well enough to divide by "
        "it. A deviation that is not printed is taken to be that of the seeds here.",
    )
    whole = f"What changes when settings do, from the study as it stands; {n}"
    part = "What settings explain of the gaps to published numbers"
    return [
        Table("ledger", whole, effects.head, effects.rows, [SOURCE], _words(effects), notes),
        Table("ledger-gaps", part, gaps.head, gaps.rows, [SOURCE], _words(gaps), about),
    ]


def _words(grid: papers.Grid) -> tuple[int, ...]:
    return tuple(range(len(grid.head) - grid.words, len(grid.head)))


def _explained(gap: PublishedGap, effects: Sequence[Effect], study: StudyInfo) -> list[str]:
    """Say what explains a gap, and what remains."""
    sign, side = (1, "below") if gap.gap > 0 else (-1, "above")
    of = f"{percent(abs(gap.gap))} points by which {study.label(gap.method)} is {side} "
    of += f"{gap.citation} on {gap.task}{f' ({gap.note})' if gap.note else ''}"
    if not gap.clear:
        within = interval(gap.low, gap.high, points)
        why = "one seed has no interval" if within == GAP else f"95% interval {within}"
        return [f"The {of} are not told from zero ({why}): there is nothing to explain."]
    shares = {share.settings: share for share in gap.shares}
    parts = [f"{name} explains {_amount(shares[name,], sign)}" for name in gap.names]
    if unseen := [of.settings[0] for of in effects if of.kind == "alone" and _unseen(of)]:
        explain = "" if parts else " explains" if len(unseen) == 1 else " explain"
        parts.append(f"{_listed(unseen)}{explain} nothing that {_seeds(gap.n)} can see")
    left = percent(sign * gap.unexplained)
    within = _ends(gap.unexplained_low, gap.unexplained_high, sign)
    after = f"With {_listed(gap.best)} changed" if gap.best else "No setting goes that way"
    return [
        f"Of the {of}, {'; '.join(parts) or 'no setting of the ledger explains any'}.",
        f"{after}: {left} points{within} remain unexplained.",
    ]


def _amount(share: Share, sign: int) -> str:
    """Say how many points of a gap a setting explains, and which share that is."""
    words = f"{percent(sign * share.points)}{_ends(share.low, share.high, sign)}"
    if share.share is None:
        return words
    within = _ends(share.share_low, share.share_high, 1, "%")
    return f"{words}, {100 * share.share:.0f}%{within} of it"


def _ends(low: float | None, high: float | None, sign: int, unit: str = "") -> str:
    """Show the ends of an interval in hundredths, in brackets, the other way round if `sign` is."""
    if low is None or high is None:
        return ""
    form = "z.0f" if unit else "z.1f"
    ends = (wording.number(100 * end, form) + unit for end in sorted((sign * low, sign * high)))
    return f" ({' to '.join(ends)})"


def _alone(name: str, effects: Sequence[Effect], told: Collection[str], gap: bool) -> list[str]:
    """Say what single settings change, but for what was said of a gap."""
    shown = [of for of in effects if of.differs and not of.unlearned]
    parts = [f"{of.settings[0]} {_effect(of)}" for of in shown if of.settings[0] not in told]
    said = [f"{name}, each setting alone: {'; '.join(parts)}."] if parts else []
    if not gap and (unseen := [of for of in effects if _unseen(of)]):
        names, n = _listed([of.settings[0] for of in unseen]), max(of.n for of in unseen)
        one = len(unseen) == 1
        said.append(f"{name}: {names} change{'s' if one else ''} nothing that {_seeds(n)} can see.")
    alike: dict[str, list[str]] = {}
    for of in effects:
        if said_of := _not_learned(of):
            alike.setdefault(said_of, []).append(of.settings[0])
    return [*said, *(f"{name}, {', '.join(names)}: {what}." for what, names in alike.items())]


def _combined(name: str, of: Effect) -> str:
    """Say what settings change together, and whether that is the sum of what each does."""
    words = f"{name}, {_listed(of.settings)} together: {_effect(of)}"
    if said := _not_learned(of):
        return f"{words}; {said}."
    if of.beyond is None or of.beyond.mean is None:
        return f"{words}."
    apart = of.beyond.p_holm is not None and of.beyond.p_holm < 0.05
    within = interval(of.beyond.low, of.beyond.high, points)
    sum_of = "the sum of what they change alone, on the same rows"
    if apart:
        more = "more" if of.beyond.mean > 0 else "less"
        amount = f"{percent(abs(of.beyond.mean))} points {more} than {sum_of} ({within})"
        return f"{words}, {amount}: effects do not add up."
    amount = f"{points(of.beyond.mean)} beyond {sum_of} ({within})"
    return f"{words}, {amount}: effects add up as far as {_seeds(of.n)} can see."


def _effect(of: Effect) -> str:
    if of.mean is None:
        return "no seed that both have"
    within = interval(of.low, of.high, points)
    return f"{points(of.mean)} points" + (f" ({within})" if within != GAP else "")


def _not_learned(of: Effect) -> str:
    """Say what it means that the study, the variant or both have not learned; "" if both have."""
    if len(of.unlearned) == 2:
        return f"decides nothing, for neither it nor the study as it stands has learned; {TRY}"
    if "variant" in of.unlearned:
        return f"has not learned; {_effect(of)} is how far the score falls to the baseline"
    if "study" in of.unlearned:
        seen = "" if of.differs else ", which the tests do not show"
        return f"{_effect(of)} from a study that has not learned as it stands{seen}"
    return ""


def _unseen(of: Effect) -> bool:
    return bool(of.n) and not of.differs and not of.unlearned


def _absent(found: Ledger, study: StudyInfo) -> list[str]:
    """Name settings that change nothing, and those without results."""
    nothing: dict[str, list[str]] = {}
    for entry in found.nothing:
        where = f"{study.label(entry.method)} on {entry.task}"
        nothing.setdefault(where, []).append(_listed(entry.settings))
    said = [f"{_listed(names)}: nothing to change in {of}." for of, names in nothing.items()]
    for of in found.missing:
        name = _listed(of.settings) or "the study as it stands"
        where = f"{study.label(of.method)} on {of.task}"
        said.append(f"Without results: {name}, {where}: {of.reason.rstrip('.')}.")
    return said


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"
