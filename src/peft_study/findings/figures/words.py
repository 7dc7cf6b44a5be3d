"""What the captions of several figures say."""

from collections.abc import Mapping

from peft_study.findings import wording

SCORE_UNIT = "fraction, shown × 100"
AXES = "Axes do not begin at 0 and differ between tasks."
RANGES = "Bands reach from the lowest to the highest seed: they are ranges, not intervals."


def best_and_worst(values: Mapping[tuple[str, str], float], labels: dict[str, str]) -> str:
    """Say of each task its highest and lowest of `values`, times 100, and whose they are."""
    found = []
    for task in dict.fromkeys(task for task, _ in values):
        mine = {method: value for (at, method), value in values.items() if at == task}
        high, low = (pick(mine, key=lambda method: mine[method]) for pick in (max, min))
        text = f"{task} {wording.percent(mine[high])} ({labels[high]})"
        if low != high:
            text += f" down to {wording.percent(mine[low])} ({labels[low]})"
        found.append(text)
    return "; ".join(found)
