"""Labels that need no download: the language that a number is written in, and the place of each of its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datamodules.builtin import HumanNumbers
from datamodules.labelled import LabelledSource, LabelledText
from datamodules.sources import Split
from datamodules.tagged import TaggedSentence, TaggedSource


@dataclass(frozen=True)
class NumberLanguages(LabelledSource):
    """Numbers in words, each labelled with the language it is written in.

    Args:
        languages: as num2words names them.
        limit: the last number; the first is 1.
    """

    languages: Sequence[str] = ("de", "en", "es", "fr")
    limit: int = 999
    validation_fraction: float = 0.1
    test_fraction: float = 0.1

    def load(self) -> dict[Split, list[LabelledText]]:
        """See LabelledSource. Raises ValueError for a number that a language has no words for."""
        speakers = {language: HumanNumbers(language, self.limit) for language in self.languages}
        numbers = range(1, self.limit + 1)
        return {"train": [LabelledText(who.spell(number), language) for language, who in speakers.items() for number in numbers]}


@dataclass(frozen=True)
class NumberPlaces(TaggedSource):
    """Numbers in words, tagged with what each word counts, as spans: the thousands, the hundreds, and the rest.

    one|B-thousands thousand|I-thousands four|B-hundreds hundred|I-hundreds two|B-rest: what "four" counts is told by the word
    after it, so that a model has to look there.

    Args:
        limit: the last number, up to 999,999; the first is 1.
    """

    limit: int = 9999
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    hold_out: Literal["end", "random"] = "random"

    def load(self) -> dict[Split, list[TaggedSentence]]:
        """See TaggedSource."""
        speaker = HumanNumbers(limit=self.limit)
        return {"train": [self.places(speaker, number) for number in range(1, self.limit + 1)]}

    def places(self, speaker: HumanNumbers, number: int) -> TaggedSentence:
        """A number in words, with what each counts."""
        parts = {"thousands": number // 1000 * 1000, "hundreds": number % 1000 // 100 * 100, "rest": number % 100}
        words = {name: speaker.spell(part).split() for name, part in parts.items() if part}
        tags = [f"{'I' if place else 'B'}-{name}" for name, part in words.items() for place in range(len(part))]
        return TaggedSentence([word for part in words.values() for word in part], tags)
