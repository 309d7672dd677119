"""Tag text: `python -m experiments.tag CHECKPOINT [FILE]`."""

from itertools import islice

from experiments.command import command, import_trusted
from experiments.lines import lines_of
from lm.tagging import Tagger

LINES_AT_ONCE = 32


def tag(checkpoint: str, file: str | None = None, trust: str = "") -> None:
    """Tag each word of a text: a word and its tag on a line, with a tab between them, and an empty line behind each sentence.

    Args:
        checkpoint: file written by a run of a Tagger.
        file: sentences, a line each, with spaces between words, and signs by themselves as in the training text; standard input
            if none is given.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    import_trusted(trust)
    model = Tagger.load_from_checkpoint(checkpoint)
    waiting = lines_of(file)
    while lines := list(islice(waiting, LINES_AT_ONCE)):
        sentences = [line.split() for line in lines]
        for words, tags in zip(sentences, model.tag(sentences), strict=True):
            print("".join(f"{word}\t{found}\n" for word, found in zip(words, tags, strict=True)), flush=True)


if __name__ == "__main__":
    command(tag, optional="file")
