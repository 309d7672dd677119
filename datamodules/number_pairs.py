"""A corpus of translations that needs no download: numbers in the words of two languages."""

from dataclasses import dataclass

from datamodules.builtin import HumanNumbers
from datamodules.holding_out import HoldOut
from datamodules.pairs import Pairs, PairSource
from datamodules.sources import Split


@dataclass(frozen=True, kw_only=True)
class NumberPairs(PairSource):
    """The numbers from 1 to a limit in the words of one language and of another.

    Words as in `datamodules.builtin.HumanNumbers`: lower case, without commas and hyphens.

    Args:
        source: as num2words names a language.
        target: the same.
        limit: the last number.
    """

    source: str = "en"
    target: str = "fr"
    limit: int = 9999
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    hold_out: HoldOut = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.languages

    @property
    def languages(self) -> tuple[HumanNumbers, HumanNumbers]:
        """Who spells the numbers on either side."""
        return HumanNumbers(self.source, self.limit), HumanNumbers(self.target, self.limit)

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Raises ValueError for a number that a language has no words for."""
        source, target = self.languages
        return {"train": Pairs.of([(source.spell(number), target.spell(number)) for number in range(1, self.limit + 1)])}
