"""Average checkpoints: `python -m experiments.average CHECKPOINT --others CHECKPOINT --to FILE`."""

from pathlib import Path

from callbacks.averaging import write_average
from callbacks.paths import shown
from experiments.command import command


def average(
    checkpoint: str,
    others: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    to: str = "average.ckpt",
) -> None:
    """Write a checkpoint whose weights are the mean of others', of one run or of several that began alike.

    It generates, scores, translates and is evaluated as they are, and cannot be resumed from.

    Args:
        checkpoint: file written by a run, such as runs/quickstart/.../checkpoints/best.ckpt.
        others: another one; can be given several times.
        to: file to write.
    """
    if not others:
        raise ValueError(f"average: {checkpoint} alone is its own average; give others with --others")
    write_average([checkpoint, *others], Path(to))
    print(f"average of {1 + len(others)} checkpoints: {shown(to)}")


if __name__ == "__main__":
    command(average)
