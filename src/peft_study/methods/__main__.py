"""`make methods`: what a study may declare, with its source and what is known of it."""

from collections.abc import Mapping
from typing import Protocol

from peft_study.methods import KINDS, METHODS, adapters_words, peft_types


class _Row(Protocol):
    @property
    def paper(self) -> str: ...
    @property
    def merges(self) -> bool: ...
    @property
    def identity(self) -> bool: ...


def main() -> None:
    """Print every method, by the way in which a study declares it."""
    _show("Methods: named in `methods`, with a block of their own", METHODS)
    print("\nRecipes, below `recipes`, are like one of these methods, like another recipe, or:")
    _show("like: bitfit", {"bitfit": KINDS["bitfit"]})
    _show("like: peft, with a `config` of this `peft_type`", peft_types.PEFT_TYPES)
    words = "like: adapters, with a `config` such as seq_bn[reduction_factor=8], or joined by |"
    _show(words, adapters_words.WORDS)
    print(
        "\nlike: predictions, with a `folder` of predictions of a method that was trained elsewhere"
    )
    print("\nRefused:")
    for name, why in (peft_types.REFUSED | adapters_words.REFUSED).items():
        print(f"  {name}: {why}")


def _show(title: str, rows: Mapping[str, _Row]) -> None:
    print(f"\n{title}")
    for name, row in rows.items():
        said = [row.paper or "-", "merges" if row.merges else "does not merge"]
        said.append("starts as the encoder" if row.identity else "starts beside the encoder")
        if needs := getattr(row, "needs", ""):
            said.append(f"needs {needs}")
        print(f"  {name:<{WIDTH}}{'; '.join(said)}")


WIDTH = 16  # columns of a name

if __name__ == "__main__":
    main()
