"""Which prepared rows a run reads: its seed's own draw, or the one that all seeds share."""

from pathlib import Path


def rows_of(prepared: Path, seed: int) -> Path:
    """Return the folder that the run of `seed` reads, in or at one that `prepare` wrote for a task.

    Where other seeds have draws of their own it is never the shared one: a run whose own draw is
    missing fails for want of a folder, instead of training on rows that are not its.
    """
    return prepared / f"seed-{seed}" if any(prepared.glob("seed-*")) else prepared
