"""Sentences with a tag on every word: what every source of them has in common, and the two usual file formats."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.holding_out import held_out_rows
from datamodules.labelled import contents
from datamodules.sources import Split, check_fractions, fractions, refuse_empty, refuse_fractions_of


class TaggedSentence(NamedTuple):
    """The words of a sentence, one at least, and the tag of each."""

    words: list[str]
    tags: list[str]


@dataclass(frozen=True, kw_only=True)
class TaggedSource(ABC):
    """Tagged sentences, already split; YAML names a source by its class path.

    Args:
        validation_fraction: hold out this share of the training sentences, in place of a split.
        test_fraction: the same for testing.
        hold_out: which sentences: "end" the last ones, those to test very last; "random" any.
        hold_out_seed: of the random way.
    """

    validation_fraction: float = 0.0
    test_fraction: float = 0.0
    hold_out: Literal["end", "random"] = "end"
    hold_out_seed: int = 0

    def __post_init__(self) -> None:
        check_fractions(self)

    @abstractmethod
    def load(self) -> dict[Split, list[TaggedSentence]]:
        """The sentences of the splits that there are: train at least."""

    def tagged(self) -> dict[Split, list[TaggedSentence]]:
        """The sentences of "train", and of "validation" and "test" where there are such.

        Raises:
            FileNotFoundError: for a missing file.
            ValueError: for data that are not what the settings say, a tag that training does not know, and a split that is empty.
        """
        name = type(self).__name__
        found = self.load()
        refuse_fractions_of(self, found)
        shares = fractions(self)
        if any(shares.values()):
            sentences = found["train"]
            pairs: Any = sentences  # of which these two ways look at the number alone
            rows = held_out_rows(pairs, shares["validation"], shares["test"], self.hold_out, self.hold_out_seed)
            found = {split: [sentences[row] for row in held] for split, held in rows.items() if split == "train" or shares[split]}
        refuse_empty(name, found)
        known = {tag for sentence in found["train"] for tag in sentence.tags}
        for split, sentences in found.items():
            for number, sentence in enumerate(sentences, start=1):
                for word, tag in zip(sentence.words, sentence.tags, strict=True):
                    if tag not in known:
                        raise ValueError(
                            f"{name}: {split} tags {word!r} in sentence {number} as {tag!r}, which is none of the {len(known)}"
                            " tags that training sentences have: correct it, hold out other sentences, or train on some with it"
                        )
        return found


@dataclass(frozen=True)
class TaggedFiles(TaggedSource):
    """A file, gzipped or not, for each split.

    Args:
        train: path of the file.
        validation: as `train`.
        test: as `train`.
    """

    train: str
    validation: str | None = None
    test: str | None = None

    @abstractmethod
    def read(self, text: str, path: Path) -> Iterator[TaggedSentence]:
        """The sentences of a file."""

    def load(self) -> dict[Split, list[TaggedSentence]]:
        """See TaggedSource."""
        given: dict[Split, str | None] = {"train": self.train, "validation": self.validation, "test": self.test}
        paths = {split: Path(name).expanduser() for split, name in given.items() if name}
        for split, path in paths.items():
            if not path.is_file():
                raise FileNotFoundError(f"{type(self).__name__}: {split} is to come from {path}, and no such file exists")
        return {split: list(self.read(contents(path), path)) for split, path in paths.items()}


COLUMNS = ("lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


@dataclass(frozen=True)
class CoNLLU(TaggedFiles):
    """CoNLL-U, the format of Universal Dependencies. Words are those of the syntax: "didn't" is two, and elided words are none.

    Args:
        column: which column holds the tags: upos, xpos, feats, deprel, or any other.
    """

    column: str = "upos"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.column not in COLUMNS:
            raise ValueError(f"CoNLLU: there is no column {self.column!r} to tag with: choose one of {list(COLUMNS)}")

    def read(self, text: str, path: Path) -> Iterator[TaggedSentence]:
        """See TaggedFiles."""
        from conllu import parse_incr
        from conllu.exceptions import ParseException

        as_it_is: Callable[[list[str], int], Any] = lambda line, place: line[place]  # noqa: E731
        try:
            for sentence in parse_incr(io.StringIO(text), field_parsers={self.column: as_it_is}):
                words = [token for token in sentence if isinstance(token["id"], int)]
                if short := next((word["form"] for word in words if self.column not in word), None):
                    raise ParseException(f"{short} has no {self.column}")
                if words:
                    yield TaggedSentence([word["form"] for word in words], [word[self.column] for word in words])
        except ParseException as error:
            raise ValueError(f"CoNLLU: {path} is no CoNLL-U ({error}): give ten columns with tabs between them") from error


@dataclass(frozen=True)
class CoNLL2003(TaggedFiles):
    """The format of the shared task on named entities: a word a line, its tags behind it with spaces between, empty lines between
    sentences. Lines of -DOCSTART- are left out.

    Args:
        column: which column holds the tags, counted from 1, the words': 2 parts of speech, 3 chunks, 4 entities.
    """

    column: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.column < 2:
            raise ValueError(f"CoNLL2003: column 1 holds the words, and tags are in one from 2 on, got {self.column}")

    def read(self, text: str, path: Path) -> Iterator[TaggedSentence]:
        """See TaggedFiles."""
        sentence = TaggedSentence([], [])
        for number, line in enumerate([*text.split("\n"), ""], start=1):
            columns = line.split()
            if not columns or columns[0] == "-DOCSTART-":
                if sentence.words:
                    yield sentence
                sentence = TaggedSentence([], [])
            elif len(columns) < self.column:
                raise ValueError(
                    f"CoNLL2003: line {number} of {path} has {len(columns)} columns, and tags are to be in column {self.column}:"
                    " correct the line, or choose another column"
                )
            else:
                sentence.words.append(columns[0])
                sentence.tags.append(columns[self.column - 1])
