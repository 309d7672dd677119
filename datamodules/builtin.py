"""Corpora that need no download: numbers in words, and the English that Python brings along."""

import platform
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from datamodules.fetching import reason
from datamodules.sources import SPLITS, Source, Split, Texts, check_fractions, exact, refuse_empty

# For the prose of PythonDocs: typographic signs as ASCII, **strong** and *emphasised* text, a word with what may stand beside it.
PLAIN = str.maketrans({"’": "'", "‘": "'", "–": "-", "—": "-", "“": None, "”": None, '"': None})
EMPHASIS = re.compile(r"\*\*(.+?)\*\*|(?<![\w*'])\*([^\s*](?:[^*]*[^\s*])?)\*(?!\w)")
WORD = re.compile(r"['(]*[A-Za-z]+(?:['-][A-Za-z]+)*[')]*[.,;:!?]?")


@dataclass(frozen=True)
class HumanNumbers(Source):
    """The numbers from 1 to a limit in words, one a line (fast.ai, chapter 12).

    English goes without commas, hyphens and "and": one thousand two hundred thirty four. Up to 9,999 that is 53,100 words of 29
    types; joined by " . ", with none after the last, 63,098 tokens of 30 types.

    Args:
        language: as num2words names it.
        limit: the last number.
        validation_fraction: share of the words, with one separator after each number, that the last lines hold out.
    """

    language: str = "en"
    limit: int = 9999
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        from num2words import CONVERTER_CLASSES

        check_fractions(self)
        if self.limit < 1:
            raise ValueError(f"HumanNumbers: counting starts at 1, got limit={self.limit}: set it to 1 or more")
        if self.language not in CONVERTER_CLASSES:
            raise ValueError(
                f"HumanNumbers: num2words has no language {self.language!r}: choose one of {sorted(CONVERTER_CLASSES)}"
            )

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return {"source": "HumanNumbers", **asdict(self)}

    def splits(self) -> dict[Split, Texts]:
        """To train: the first lines that hold their share of the words; the rest to validate."""
        lines = [self.spell(number) for number in range(1, self.limit + 1)]
        ends = list(accumulate(len(line.split()) + 1 for line in lines))
        count = 1 + bisect_left(ends, (1 - exact(self.validation_fraction)) * ends[-1])
        splits: dict[Split, Texts] = {"train": lines[:count]}
        if self.validation_fraction:
            splits["validation"] = lines[count:]
        return refuse_empty("HumanNumbers", splits)

    def spell(self, number: int) -> str:
        """A number in lower-case words, one space between them."""
        from num2words import num2words

        try:
            words = re.sub("[,-]", " ", num2words(number, lang=self.language).lower()).split()
        except Exception as error:
            raise ValueError(
                f"HumanNumbers: num2words cannot write {number} in {self.language!r} ({reason(error)}): choose another language"
            ) from error
        return " ".join(word for word in words if word != "and" or not self.language.startswith("en"))


@dataclass(frozen=True)
class PythonDocs(Source):
    """English that every Python brings along: the prose of its own language reference, a paragraph a line.

    Topics repeat each other's paragraphs. A line is kept once, in a held-out topic if there is one: none is seen in training.

    Args:
        validation_fraction: about this share of the topics, evenly spread, is held out.
        test_fraction: the same for testing.
        max_words: cut the training text after so many words; None keeps them all.
    """

    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    max_words: int | None = None

    def __post_init__(self) -> None:
        check_fractions(self)
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"PythonDocs: a text has words, got max_words={self.max_words}: set 1 or more, or null")

    def describe(self) -> dict[str, Any]:
        """Includes the version of Python, which the text changes with."""
        return {"source": "PythonDocs", **asdict(self), "python": platform.python_version()}

    def splits(self) -> dict[Split, Texts]:
        """Lines of whole topics, in the topics' alphabetical order."""
        from pydoc_data.topics import topics

        remaining = sorted(topics)
        test = spread(remaining, self.test_fraction)
        remaining = [topic for topic in remaining if topic not in test]
        validation = spread(remaining, self.validation_fraction)
        train = [topic for topic in remaining if topic not in validation]

        seen: set[str] = set()
        lines: dict[Split, list[str]] = {}
        held: tuple[tuple[Split, list[str]], ...] = (("test", test), ("validation", validation), ("train", train))
        for split, names in held:
            found = dict.fromkeys(line for topic in names for line in paragraphs(topics[topic]) if is_prose(line))
            lines[split] = [line for line in found if line not in seen]
            seen.update(found)
        if self.max_words is not None:
            lines["train"] = first_words(lines["train"], self.max_words)
        return refuse_empty("PythonDocs", {split: lines[split] for split in SPLITS if dict(held)[split]})


def first_words(lines: list[str], count: int) -> list[str]:
    """The lines that hold the first words, the last of them cut."""
    kept = []
    for line in lines:
        words = line.split()[:count]
        if not words:
            break
        kept.append(" ".join(words))
        count -= len(words)
    return kept


def spread(names: list[str], fraction: float) -> list[str]:
    """Every n-th name, from the middle of the first n; n is 1 / fraction, rounded."""
    n = round(1 / fraction) if fraction else 0
    return names[n // 2 :: n] if n else []


def paragraphs(text: str) -> Iterator[str]:
    """Each paragraph on one line, without underlines, bullets, emphasis and the quotes around code."""
    for block in re.split(r"\n\s*\n", text.translate(PLAIN)):
        block = re.sub(r"(?<=\w-)\n\s*", "", block)
        line = " ".join(" ".join(row for row in block.splitlines() if re.search(r"\w", row)).split())
        line = re.sub(r"^(?:[*+-]|\d+\.|\[\d+\]) ", "", line)
        yield EMPHASIS.sub(lambda match: match[1] or match[2], line)


def is_prose(line: str) -> bool:
    """Whether a paragraph reads as English: sentences of words, rather than a heading, code or a grammar."""
    words = line.split()
    plain = sum(bool(WORD.fullmatch(word)) for word in words)
    return len(words) >= 6 and line.isascii() and line[0].isupper() and line[-1] in ".!?" and plain >= 0.85 * len(words)
