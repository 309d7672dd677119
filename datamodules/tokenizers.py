"""Text to token ids and back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

Unit = Literal["character", "byte"]

UNKNOWN = ("<unk>", "[UNK]", "xxunk")
PADDING = ("<pad>", "[PAD]", "xxpad")
BEGINNING = ("<bos>", "[CLS]", "<s>", "xxbos")
END = ("<eos>", "[SEP]", "</s>", "<|endoftext|>", "xxeos")
MASK = ("<mask>", "[MASK]")
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
"""Writes each byte of a text as the letter that stands for it."""


class Tokenizer:
    """A trained tokenizer, with what a model has to know of it.

    Text never turns into a reserved token by accident: "<eos>" in a text is spelled out. Words are the exception: one that is
    spelled like a token is that token, as corpora such as WikiText write `<unk>`.

    Args:
        backend: a tokenizer of the `tokenizers` library.

    Attributes:
        unknown, padding, beginning, end, mask: ids of the tokens with the usual names, or None.
        dropout: probability that BPE skips a merge (Provilkov et al. 2020), or None; only `encode_batch` may apply it.
        unit: what the text, after normalization, can be measured in, or None where tokens do not add up to the text.
    """

    def __init__(self, backend: Backend) -> None:
        vocabulary = backend.get_vocab()
        if len(vocabulary) != 1 + (last := max(vocabulary.values(), default=0)):
            raise ValueError(f"Tokenizer: {len(vocabulary)} tokens have ids up to {last}: number them from 0 without gaps")
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.vocab_size = len(vocabulary)
        self.unknown, self.padding, self.beginning, self.end, self.mask = (
            next((vocabulary[name] for name in names if name in vocabulary), None)
            for names in (UNKNOWN, PADDING, BEGINNING, END, MASK)
        )
        self.dropout: float | None = getattr(backend.model, "dropout", None)
        self.unit: Unit | None = None
        if isinstance(backend.decoder, decoders.ByteLevel):
            self.unit = "byte"
        elif isinstance(backend.model, models.WordLevel) and isinstance(backend.decoder, decoders.Fuse):
            self.unit = "character"
        self._set_dropout(None)

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """The tokenizer that `to_json` wrote, or a tokenizer.json of the `tokenizers` library."""
        return cls(Backend.from_str(text))

    def to_json(self) -> str:
        """Everything there is to know, in the format of the `tokenizers` library."""
        self._set_dropout(self.dropout)
        try:
            return self.backend.to_str()
        finally:
            self._set_dropout(None)

    def __len__(self) -> int:
        return self.vocab_size

    def __reduce__(self) -> tuple[Callable[[str], "Tokenizer"], tuple[str]]:
        # The backend alone would forget, in another process, to spell reserved tokens out.
        return Tokenizer.from_json, (self.to_json(),)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with nothing put before or after it."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def pieces(self, text: str) -> list[str]:
        """The stretch of a text that each of its tokens stands for, whether the vocabulary has it or not."""
        return [text[start:stop] for start, stop in self.backend.encode(text, add_special_tokens=False).offsets]

    def encode_batch(self, texts: Sequence[str], dropout: bool = False) -> list[list[int]]:
        """Ids of each text; `dropout` is for training text, and cannot be seeded."""
        self._set_dropout(self.dropout if dropout else None)
        try:
            return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        finally:
            self._set_dropout(None)

    def decode(self, ids: Sequence[int], words: Sequence[str] | None = None) -> str:
        """Readable text; reserved tokens stay in it by name. Raises ValueError for an id outside the vocabulary.

        Args:
            ids: of tokens.
            words: one for each, which is written where the token is the unknown one.
        """
        names = self._names(ids)
        if words is None or self.unknown not in ids:
            return self.backend.decode(list(ids), skip_special_tokens=False)
        if self.unit == "byte":  # whose decoder takes every letter for a byte
            words = ["".join(piece for piece, _ in BYTES.pre_tokenize_str(word)) for word in words]
        written = [word if i == self.unknown else name for i, name, word in zip(ids, names, words, strict=True)]
        return self.backend.decoder.decode(written) if self.backend.decoder else " ".join(written)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself; bytes as text where they are whole characters. Raises ValueError as `decode` does."""
        names = self._names(ids)
        if self.unit != "byte" or self.backend.decoder is None:
            return names
        texts = [self.backend.decoder.decode([name]) for name in names]
        return [name if "\ufffd" in text else text for name, text in zip(names, texts, strict=True)]

    def id_of(self, token: str) -> int:
        """The id of one entry of the vocabulary, spelled as it is there."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ValueError(f"Tokenizer: {token!r} is not among its {self.vocab_size} tokens: reserve it, or train on it")
        return found

    def spellings(self) -> list[list[str]]:
        """The characters of each entry of the vocabulary; a reserved one is a single character of its own."""
        usual = {self.unknown, self.padding, self.beginning, self.end, self.mask}
        reserved = usual | set(self.backend.get_added_tokens_decoder())
        return [[name] if i in reserved else list(name) for i, name in enumerate(self.tokens(range(self.vocab_size)))]

    def token_lengths(self) -> list[int] | None:
        """Units of text each id stands for, `(vocab_size,)`, or None without a unit; reserved ones count 1, as an end of line."""
        if self.unit is None:
            return None
        reserved = self.backend.get_added_tokens_decoder()
        return [1 if i in reserved else len(name) for i, name in enumerate(self._names(range(self.vocab_size)))]

    def _names(self, ids: Iterable[int]) -> list[str]:
        names = []
        for i in ids:
            name = self.backend.id_to_token(i) if i >= 0 else None
            if name is None:
                raise ValueError(f"Tokenizer: there is no token {i}: its ids run from 0 to {self.vocab_size - 1}")
            names.append(name)
        return names

    def _set_dropout(self, dropout: float | None) -> None:
        if isinstance(self.backend.model, models.BPE):
            self.backend.model.dropout = dropout


def word_ids(words: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """One id for each word, however it is spelled: the unknown one where the tokenizer makes several of it, or none.

    Raises:
        ValueError: if the vocabulary has no unknown token.
    """
    if tokenizer.unknown is None:
        raise ValueError("words: the vocabulary has no token for unknown words: reserve <unk>")
    return [ids[0] if len(ids) == 1 else tokenizer.unknown for ids in tokenizer.encode_batch(words)]
