"""Tell masked tokens: `python -m experiments.fill CHECKPOINT "... [MASK] ..."`."""

from experiments.command import command, import_trusted
from lm.masked import MaskedModel


def fill(checkpoint: str, text: str, choices: int = 5, trust: str = "") -> None:
    """Tell the masked tokens of a line from what stands before and after them.

    Args:
        checkpoint: file written by a run of a MaskedModel.
        text: a line in which [MASK] stands for each token that is to be told.
        choices: how many of the most probable tokens to show for each.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    if choices < 1:
        raise ValueError(f"fill: choices counts from 1, got {choices}")
    import_trusted(trust)
    filling = MaskedModel.load_from_checkpoint(checkpoint).fill(text, choices)
    print(filling.text)
    for found in filling.choices:
        print("  " + "  ".join(f"{token} {probability:.3f}" for token, probability in found))


if __name__ == "__main__":
    command(fill)
