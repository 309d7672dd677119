"""A vocabulary that comes as a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from datamodules.fetching import fetch, local, locate
from datamodules.recipes import TrainedRecipe
from datamodules.sources import Files

WORDS = "the list of words"  # as messages call it


@dataclass(frozen=True, kw_only=True)
class WordList(TrainedRecipe):
    """What stands between white space, where a file lists the words that are known, one a line, in the order of their ids.

    The texts it is given teach it nothing.

    Args:
        file: path or URL, as `datamodules.sources.Files` takes one. Reserved tokens come first, whether it lists them or not.
    """

    reserved_tokens: Sequence[str] = ("<unk>", "<s>", "</s>")
    file: str

    def describe(self) -> dict[str, Any]:
        """Includes size and time of a local file."""
        location = locate(self.file)
        stat = None if location.is_url else local(WORDS, location).stat()
        return {**super().describe(), "stat": stat and [stat.st_size, stat.st_mtime_ns]}

    def learn(self, texts: Iterator[str]) -> Backend:
        """Looks at the texts only to see that there are some."""
        any(text.strip() for text in texts)
        lines = Files(str(fetch(WORDS, self.file)), format="text").splits()["train"]
        listed = [word for line in lines if (word := line.strip())]
        if spaced := next((word for word in listed if len(word.split()) > 1), None):
            raise ValueError(f"WordList: {self.file} lists {spaced!r}, which is more than one word: write one word a line")
        vocabulary = dict.fromkeys([*self.reserved_tokens, *listed])
        backend = Backend(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=str(self.unknown)))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return backend
