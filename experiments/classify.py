"""Say which kind of text each line is: `python -m experiments.classify CHECKPOINT [FILE]`."""

from itertools import islice

from experiments.command import command, import_trusted
from experiments.lines import lines_of
from lm.classification import Classifier

LINES_AT_ONCE = 32


def classify(checkpoint: str, file: str | None = None, ensemble: list[str] = [], trust: str = "") -> None:  # noqa: B006
    """Label each line of a text with a trained classifier, and say how probable the label is.

    Args:
        checkpoint: file written by a run of a Classifier.
        file: texts, a line each; standard input if none is given.
        ensemble: checkpoint of another classifier whose probabilities are averaged with this one's; can be given several times.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    import_trusted(trust)
    model = Classifier.load_from_checkpoint(checkpoint)
    model.ensemble = list(ensemble) or model.ensemble
    waiting = lines_of(file)
    while lines := list(islice(waiting, LINES_AT_ONCE)):
        for line, found in zip(lines, model.classify(lines), strict=True):
            print(f"{found.label}\t{found.probabilities[found.label]:.3f}\t{line}", flush=True)


if __name__ == "__main__":
    command(classify, optional="file")
