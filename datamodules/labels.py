"""Labels as a vocabulary: the tags of words, the classes of texts."""

from collections.abc import Iterable

from tokenizers import Tokenizer as Backend
from tokenizers import models

from datamodules.tokenizers import Tokenizer


def label_vocabulary(labels: Iterable[str]) -> Tokenizer:
    """A token for each different label, in the order of the alphabet."""
    names = sorted(set(labels))
    return Tokenizer(Backend(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=names[0])))
