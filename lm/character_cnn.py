"""Words as their characters: an embedding computed from how a word is spelled."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.tokenizers import Tokenizer
from lm.network import SpelledEmbedding
from lm.precision import product_dtype

PADDING, UNKNOWN, BEGINNING, END = range(4)
"""Ids of what is no character of the alphabet: behind a word, a character that is not in it, before a word, and at its end."""

WORDS_AT_ONCE = 4096
"""Words whose filters exist at one time when those of a whole vocabulary are computed."""


class Highway(nn.Module):
    """Part of the input as it is, and part of it transformed (Srivastava et al. 2015, eq. 3).

        t = σ(W_T x + b_T − 2)
        y = t ⊙ ReLU(W_H x + b_H) + (1 − t) ⊙ x

    The −2, which lets most of the input through at first, is usually the initial value of b_T; here it holds whatever the
    initialisation of all biases.

    Args:
        size: features of x and y.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.transform = nn.Linear(size, size)
        self.gate = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., size)` -> the same shape."""
        return torch.lerp(x, self.transform(x).relu(), (self.gate(x) - 2).sigmoid())


class CharacterCNN(SpelledEmbedding):
    """A convolution over the characters of each word (Kim et al. 2016, §2.2 and §2.3).

        f = [max_i tanh(H_w ∗ C + b_w)_i for each width w],   word = W highway(f)

    C holds the vectors of `<`, the characters of the word and `>`, and zeros up to the longest word. W is there only where the
    filters are not as many as the embedding's features. Every distinct word of a batch is computed once, and where no gradient is
    recorded in evaluation all words of the vocabulary are, until a weight changes.

    The alphabet is made of the characters in most words of the vocabulary; a reserved token is a character of its own.

    Args:
        vocab_size: words of the vocabulary.
        embedding_size: features of a word.
        character_size: features of a character.
        widths: characters that the filters of each kind span.
        filters: how many there are of each kind.
        highway_layers: layers between filters and word.
        alphabet_size: different characters; the others, the rarest, are one unknown character.
        longest: characters of a word that are read.

    Raises:
        ValueError: if widths and filters are not as many, or a word is shorter than the widest filter.
    """

    spellings: Tensor

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        character_size: int = 15,
        widths: Sequence[int] = (1, 2, 3, 4, 5, 6),
        filters: Sequence[int] = (25, 50, 75, 100, 125, 150),
        highway_layers: int = 1,
        alphabet_size: int = 256,
        longest: int = 20,
    ) -> None:
        super().__init__()
        if len(widths) != len(filters) or not widths:
            raise ValueError(f"CharacterCNN: give each of the widths {list(widths)} its number of filters, got {list(filters)}")
        if max(widths) > longest + 2:
            raise ValueError(
                f"CharacterCNN: a filter of {max(widths)} characters is wider than the longest word, {longest} and 2"
            )
        self.alphabet_size = alphabet_size
        self.characters = nn.Embedding(END + 1 + alphabet_size, character_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(character_size, count, width) for width, count in zip(widths, filters, strict=True)
        )
        self.highway = nn.Sequential(*(Highway(sum(filters)) for _ in range(highway_layers)))
        same = sum(filters) == embedding_size
        self.projection = nn.Identity() if same else nn.Linear(sum(filters), embedding_size)
        self.register_buffer("spellings", torch.full((vocab_size, longest + 2), PADDING, dtype=torch.int32))
        self.known: tuple[tuple[object, ...], Tensor] | None = None

    def learn_spellings(self, tokenizer: Tokenizer) -> None:
        """See SpelledEmbedding; a checkpoint keeps it.

        Raises:
            ValueError: if the reserved tokens alone are more than the alphabet takes.
        """
        spellings = tokenizer.spellings()
        longest = self.spellings.shape[1] - 2
        reserved = {word[0] for word in spellings if len(word) == 1 and len(word[0]) > 1}
        if len(reserved) > self.alphabet_size:
            raise ValueError(
                f"CharacterCNN: {len(reserved)} reserved tokens need an alphabet_size of as many, got {self.alphabet_size}"
            )
        words_with = Counter(character for word in spellings for character in set(word))
        ranked = sorted(words_with, key=lambda character: (character not in reserved, -words_with[character], character))
        ids = {character: END + 1 + rank for rank, character in enumerate(ranked[: self.alphabet_size])}
        rows = [[BEGINNING, *(ids.get(character, UNKNOWN) for character in word[:longest]), END] for word in spellings]
        padded = [row + [PADDING] * (longest + 2 - len(row)) for row in rows]
        self.spellings.copy_(torch.tensor(padded, dtype=torch.int32))
        self.known = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids `(...)` -> `(..., embedding_size)`.

        Raises:
            ValueError: if it has not learned how words are spelled.
        """
        if not self.training and not torch.is_grad_enabled():
            return self.all_words()[tokens]
        words, places = torch.unique(tokens, return_inverse=True)
        return self.encode(self.spellings[words])[places]

    def all_words(self) -> Tensor:
        """The vector of every word, `(vocab_size, embedding_size)`, computed anew where a weight has changed."""
        weight = self.characters.weight
        state = (product_dtype(weight), weight.device, weight.dtype, *(parameter._version for parameter in self.parameters()))
        if self.known is None or self.known[0] != state:
            self.known = state, torch.cat([self.encode(part) for part in torch.split(self.spellings, WORDS_AT_ONCE)])
        return self.known[1]

    def train(self, mode: bool = True) -> "CharacterCNN":
        """See nn.Module; between training and evaluation weights may be exchanged in ways that leave no trace."""
        self.known = None
        return super().train(mode)

    def encode(self, spellings: Tensor) -> Tensor:
        """Character ids `(words, characters)` -> `(words, embedding_size)`, in the weights' own precision."""
        if len(spellings) and spellings[0, 0] != BEGINNING:
            raise ValueError("CharacterCNN: it does not know how words are spelled: train it on data that has a tokenizer")
        characters = (self.characters(spellings) * (spellings != PADDING)[:, :, None]).transpose(1, 2)
        found = torch.cat([convolution(characters).amax(dim=2) for convolution in self.convolutions], dim=1).tanh()
        words: Tensor = self.projection(self.highway(found))
        return words.to(self.characters.weight.dtype)


def spelled_in_bytes(words: Sequence[str], longest: int = 20) -> Tensor:
    """Ids `(words, longest + 2)` for `CharacterCNN.encode`, whose characters are the bytes of UTF-8: no word is unknown.

    Args:
        words: as they are spelled.
        longest: bytes of a word that are read.
    """
    rows = [[BEGINNING, *(END + 1 + byte for byte in word.encode()[:longest]), END] for word in words]
    return torch.tensor([row + [PADDING] * (longest + 2 - len(row)) for row in rows], dtype=torch.int64)
