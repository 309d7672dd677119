"""AWD-LSTMs of other programs as checkpoints: `python -m experiments.import_weights WEIGHTS WORDS CHECKPOINT`."""

from pathlib import Path

import lightning
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from datamodules.cache import write_whole
from datamodules.tokenizers import UNKNOWN, Tokenizer
from experiments.command import command
from lm.checkpoint_file import AtomicCheckpointIO, read_file
from lm.imported import awd_lstm


def import_weights(weights: str, words: str, checkpoint: str) -> None:
    """Make a checkpoint that generates, scores, tests and trains on from a state dict of salesforce/awd-lstm-lm or fastai.

    Args:
        weights: file of the state dict, `torch.save(model.state_dict(), FILE)` there; fastai's own files, which hold it as
            `model`, will do.
        words: text file of the vocabulary, one word a line, in the order of their ids.
        checkpoint: the file to write; the tokenizer, for data to test or train on, is put beside it.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if it holds something else.
    """
    held = read_file(weights)
    found = held.get("model", held) if isinstance(held, dict) else held
    if not isinstance(found, dict):
        raise ValueError(
            f"{weights}: it holds a {type(found).__name__}; write torch.save(model.state_dict(), FILE) where it was trained"
        )
    tokenizer = word_tokenizer(Path(words))
    model = awd_lstm(found, tokenizer)
    written = {"state_dict": model.state_dict(), "pytorch-lightning_version": lightning.__version__}
    model.on_save_checkpoint(written)
    AtomicCheckpointIO().save_checkpoint(written, checkpoint)
    beside = Path(checkpoint).with_suffix(".json")
    write_whole(beside, tokenizer.to_json())
    print(f"checkpoint: {checkpoint}")
    print(f"tokenizer: {beside} (--data.tokenizer datamodules.recipes.Pretrained --data.tokenizer.name {beside})")


def word_tokenizer(path: Path) -> Tokenizer:
    """What stands between white space, by the ids of a list of words.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has a word twice.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"words: there is no file {path}; write the vocabulary into it, one word a line, in the order of ids"
        )
    words = path.read_text(encoding="utf-8").splitlines()
    ids = {word: number for number, word in enumerate(words)}
    if len(ids) < len(words):
        twice = next(word for number, word in enumerate(words) if ids[word] != number)
        raise ValueError(f"words: {path} has {twice!r} twice; a word has one id")
    unknown = next((name for name in UNKNOWN if name in ids), None)
    backend = Backend(models.WordLevel(ids, **({} if unknown is None else {"unk_token": unknown})))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend)


if __name__ == "__main__":
    command(import_weights)
