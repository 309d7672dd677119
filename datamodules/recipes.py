"""How tokenizers are trained: recipes, each named in YAML by its class path."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from datamodules.tokenizers import UNKNOWN, Tokenizer

Normalization = Literal["none", "strip", "lowercase", "letters", "article", "punctuation"]

# Whatever is neither letter nor digit stands alone, as in GPT-2: so no piece of text can read "<eos>".
PIECES = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex(r"▁?[^\p{L}\p{M}\p{N}▁]+"), "isolated")])
# Chinese is written without the spaces that WordPiece's decoder puts between words.
NO_SPACE_BEFORE_CHINESE = decoders.Replace(Regex(r"^ (?=[\p{Han}\u3000-\u303F\uFF00-\uFFEF])"), "")
NORMALIZERS = {
    "none": normalizers.Sequence([]),
    "strip": normalizers.Strip(),
    "lowercase": normalizers.Lowercase(),
    "letters": normalizers.Sequence(
        [normalizers.Replace(Regex("[^A-Za-z]+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    ),
    "article": normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(".", " "), normalizers.Replace(Regex(r"[\p{P}\p{S}]"), "")]
    ),
    "punctuation": normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[\u00a0\u202f]"), " "),
            *(normalizers.Replace(Regex(rf"(?<=[^ ])\{mark}"), f" {mark}") for mark in ",.!?"),
        ]
    ),
}


@dataclass(frozen=True)
class TokenizerRecipe(ABC):
    """How to come by a tokenizer; YAML names one by its class path."""

    @abstractmethod
    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer for these texts, which are read once. Raises ValueError where they hold nothing to learn from."""

    def describe(self) -> dict[str, Any]:
        """The settings that decide the tokenizer, in types that JSON has: the key of a cache."""
        return {"recipe": type(self).__name__, **json.loads(json.dumps(asdict(self)))}


@dataclass(frozen=True)
class TrainedRecipe(TokenizerRecipe):
    """A vocabulary learnt from texts, and the options all such recipes have.

    Args:
        reserved_tokens: names of the ids 0, 1, ...; one must be "<unk>" or "[UNK]" unless the vocabulary is made of bytes.
        normalization: "strip" takes white space away from both ends; "letters" is d2l's (all but A-Z and a-z becomes one space,
            in lower case); "article" is lower case with a space for ".", other punctuation deleted and digits kept; "punctuation"
            is what d2l translates: lower case, no-break spaces plain, and one before each of ,.!? that has none. It is part of
            the tokenizer, so prompts get it too.
    """

    reserved_tokens: Sequence[str] = ("<unk>", "<eos>")
    normalization: Normalization = "none"

    def __post_init__(self) -> None:
        name, reserved = type(self).__name__, list(self.reserved_tokens)
        if "" in reserved or len(set(reserved)) < len(reserved):
            raise ValueError(f"{name}: each of the reserved tokens needs a name of its own, got {reserved}")
        if self.unknown is None and not self.made_of_bytes:
            raise ValueError(f"{name}: the reserved tokens {reserved} have none for unknown text: add '<unk>'")
        if self.normalization not in NORMALIZERS:
            raise ValueError(f"{name}: there is no normalization {self.normalization!r}: choose one of {list(NORMALIZERS)}")

    @property
    def unknown(self) -> str | None:
        """The reserved token for what the vocabulary lacks."""
        return next((token for token in self.reserved_tokens if token in UNKNOWN), None)

    @property
    def made_of_bytes(self) -> bool:
        """Whether nothing can be unknown."""
        return False

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer for these texts, which are read once. Raises ValueError where normalization leaves only blanks."""
        backend = self.learn(self._normalized(texts))
        backend.add_special_tokens(list(self.reserved_tokens))
        backend.normalizer = NORMALIZERS[self.normalization]
        return Tokenizer(backend)

    @abstractmethod
    def learn(self, texts: Iterator[str]) -> Backend:
        """A backend whose vocabulary begins with the reserved tokens and covers these normalized texts."""

    def _normalized(self, texts: Iterable[str]) -> Iterator[str]:
        blank = True
        for text in map(NORMALIZERS[self.normalization].normalize_str, texts):
            blank = blank and not text.strip()
            yield text
        if blank:
            raise ValueError(
                f"{type(self).__name__}: no text to train on is left after normalization {self.normalization!r}: check the source"
            )


@dataclass(frozen=True)
class Characters(TrainedRecipe):
    """Every character a token, the most frequent first."""

    reserved_tokens: Sequence[str] = ("<unk>",)

    def learn(self, texts: Iterator[str]) -> Backend:
        """Splits between any two characters, line ends included."""
        backend = closed_vocabulary(texts, pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), self.reserved_tokens)
        backend.decoder = decoders.Fuse()
        return backend


@dataclass(frozen=True)
class Words(TrainedRecipe):
    """What stands between white space, the most frequent first.

    Args:
        min_frequency: words seen less often are unknown.
        max_size: tokens in all, reserved ones included; None keeps every word.
    """

    min_frequency: int = 1
    max_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_frequency < 1:
            raise ValueError(f"Words: a word is seen at least once, got min_frequency={self.min_frequency}: set it to 1 or more")
        if self.max_size is not None and self.max_size <= len(self.reserved_tokens):
            raise ValueError(f"Words: max_size={self.max_size} leaves no room beside {len(self.reserved_tokens)} reserved tokens")

    def learn(self, texts: Iterator[str]) -> Backend:
        """Splits at white space."""
        return closed_vocabulary(texts, pre_tokenizers.WhitespaceSplit(), self.reserved_tokens, self.min_frequency, self.max_size)


@dataclass(frozen=True)
class BPE(TrainedRecipe):
    """Byte-pair encoding (Sennrich et al. 2016).

    Args:
        vocab_size: tokens in all, reserved ones included.
        dropout: probability of skipping a merge in training text (Provilkov et al. 2020); 0 turns it off.
        byte_level: start from the 256 bytes instead of the characters seen, so that no text is unknown.
    """

    vocab_size: int = 8000
    dropout: float = 0.0
    byte_level: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"BPE: dropout is a probability below 1, got {self.dropout}")

    @property
    def made_of_bytes(self) -> bool:
        """True for bytes."""
        return self.byte_level

    def learn(self, texts: Iterator[str]) -> Backend:
        """Merges the most frequent pairs until the vocabulary is full."""
        backend = Backend(models.BPE(unk_token=self.unknown, dropout=self.dropout or None))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if self.byte_level else PIECES
        backend.decoder = decoders.ByteLevel() if self.byte_level else decoders.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(self.reserved_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if self.byte_level else [],
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return refuse_overflow(backend, self.vocab_size, "BPE: raise vocab_size, or start from bytes with byte_level")


@dataclass(frozen=True)
class WordPiece(TrainedRecipe):
    """Pieces of words, their continuations marked by ## (Schuster and Nakajima 2012); Chinese characters stand alone.

    Args:
        vocab_size: tokens in all, reserved ones included.
        limit_alphabet: keep this many characters, the most frequent; words with any other are unknown. None keeps all.
    """

    reserved_tokens: Sequence[str] = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    vocab_size: int = 8000
    limit_alphabet: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit_alphabet is not None and self.limit_alphabet < 1:
            raise ValueError(
                f"WordPiece: an alphabet has letters, got limit_alphabet={self.limit_alphabet}: set 1 or more, or null"
            )

    def learn(self, texts: Iterator[str]) -> Backend:
        """Merges as BPE does, over counted words: left to itself the trainer numbers continuations in a random order."""
        splitter = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"), pre_tokenizers.BertPreTokenizer()]
        )
        counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
        letters: Counter[str] = Counter()
        for word, count in counts.items():
            letters.update(dict.fromkeys(word, count))
        alphabet = set(sorted(letters, key=lambda letter: (-letters[letter], letter))[: self.limit_alphabet])
        known = Counter({word: count for word, count in counts.items() if alphabet.issuperset(word)})
        continuations = sorted({f"##{letter}" for word in known for letter in word[1:]})

        learner = Backend(models.WordPiece(unk_token=str(self.unknown)))
        learner.pre_tokenizer = splitter
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab_size, special_tokens=[*self.reserved_tokens, *continuations], show_progress=False
        )
        learner.train_from_iterator(known.elements(), trainer)

        backend = Backend(models.WordPiece(learner.get_vocab(), unk_token=str(self.unknown)))
        backend.pre_tokenizer = splitter
        backend.decoder = decoders.Sequence([decoders.WordPiece(), NO_SPACE_BEFORE_CHINESE])
        return refuse_overflow(backend, self.vocab_size, "WordPiece: raise vocab_size, or set limit_alphabet")


@dataclass(frozen=True)
class Unigram(TrainedRecipe):
    """The pieces of a unigram language model (Kudo 2018).

    The library visits words in random order, so that two trainings on one text may differ in a score's second decimal.

    Args:
        vocab_size: tokens in all, reserved ones included.
    """

    vocab_size: int = 8000

    def learn(self, texts: Iterator[str]) -> Backend:
        """Prunes a large vocabulary by expectation maximisation."""
        backend = Backend(models.Unigram())
        backend.pre_tokenizer = PIECES
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(self.reserved_tokens),
            unk_token=self.unknown,
            show_progress=False,
        )
        try:
            backend.train_from_iterator(texts, trainer)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"Unigram: {self.vocab_size} tokens are too few ({error}): raise vocab_size") from error
        return backend


@dataclass(frozen=True)
class Bytes(TrainedRecipe):
    """The 256 bytes of UTF-8, after the reserved tokens."""

    reserved_tokens: Sequence[str] = ("<eos>",)

    @property
    def made_of_bytes(self) -> bool:
        """Always."""
        return True

    def learn(self, texts: Iterator[str]) -> Backend:
        """Looks at the texts only to see that there are some."""
        any(text.strip() for text in texts)
        vocabulary = [*self.reserved_tokens, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        backend = Backend(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        return backend


@dataclass(frozen=True)
class Pretrained(TokenizerRecipe):
    """A tokenizer trained elsewhere; the texts it is given are not read.

    Args:
        name: path of a tokenizer.json, or the id of a repository of the Hugging Face hub that holds one.
    """

    name: str

    def load(self) -> Tokenizer:
        """Raises FileNotFoundError where there is neither, ValueError for a file that holds no tokenizer."""
        if Path(self.name).is_file():
            try:
                return Tokenizer.from_json(Path(self.name).read_text(encoding="utf-8"))
            except Exception as error:
                raise ValueError(f"Pretrained: {self.name} is no tokenizer.json of the tokenizers library ({error})") from error
        try:
            return Tokenizer(Backend.from_pretrained(self.name))
        except Exception as error:
            raise FileNotFoundError(
                f"Pretrained: {self.name!r} is neither a file here nor a tokenizer of the hub ({str(error).splitlines()[0]}): "
                "give the path of a tokenizer.json, or a repository that holds one"
            ) from error

    def train(self, texts: Iterable[str]) -> Tokenizer:  # noqa: ARG002
        """The tokenizer as it is."""
        return self.load()

    def describe(self) -> dict[str, Any]:
        """Includes a hash of the contents, since a file or a repository can change behind its name."""
        return {**super().describe(), "sha256": hashlib.sha256(self.load().to_json().encode()).hexdigest()}


def closed_vocabulary(
    texts: Iterator[str],
    splitter: pre_tokenizers.PreTokenizer,
    reserved: Sequence[str],
    min_frequency: int = 1,
    max_size: int | None = None,
) -> Backend:
    """Reserved tokens, then whatever the splitter finds, by falling frequency and then by alphabet."""
    learner = Backend(models.WordLevel())
    learner.pre_tokenizer = splitter
    # The trainer would give a reserved token that the text holds, such as WikiText's <unk>, a second id: so they come later.
    learner.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=max_size or sys.maxsize, min_frequency=min_frequency, special_tokens=[], show_progress=False
        ),
    )
    found = learner.get_vocab()
    vocabulary = list(dict.fromkeys([*reserved, *sorted(found, key=found.__getitem__)]))[:max_size]
    unknown = next(token for token in reserved if token in UNKNOWN)
    backend = Backend(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=unknown))
    backend.pre_tokenizer = splitter
    return backend


def refuse_overflow(backend: Backend, vocab_size: int, remedy: str) -> Backend:
    """The backend, unless its alphabet alone outgrew `vocab_size`, which the trainers let happen."""
    size = backend.get_vocab_size()
    if size > vocab_size:
        name, advice = remedy.split(": ")
        raise ValueError(f"{name}: the alphabet and the reserved tokens already make {size} tokens, over {vocab_size=}: {advice}")
    return backend
