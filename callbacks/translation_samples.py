"""Translations by a model while it learns."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from mt import Seq2Seq
from mt.search import GreedySearch


class SampleTranslations(Callback):
    """Translates some validation sentences greedily every so many epochs; prints them, and hands them to loggers that take text.

    Args:
        count: sentences, evenly spread over the validation split.
        every_n_epochs: epochs from one sample to the next.

    Raises:
        ValueError: if a count is not positive.
        TypeError: if the module does not translate.
    """

    def __init__(self, count: int = 3, every_n_epochs: int = 1) -> None:
        if count < 1 or every_n_epochs < 1:
            raise ValueError(f"SampleTranslations: both count from 1, got {count=}, {every_n_epochs=}")
        self.count = count
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and log, beside what should have come out."""
        if not isinstance(pl_module, Seq2Seq):
            raise TypeError(f"SampleTranslations needs a Seq2Seq, which translates; {type(pl_module).__name__} does not")
        data: Any = getattr(trainer, "datamodule", None)
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        if not due or data is None or not trainer.is_global_zero:
            return
        texts = data.texts("validation")
        pairs = [texts[place * len(texts) // self.count] for place in range(min(self.count, len(texts)))]
        found = [best[0].text for best in pl_module.translate([pair.source for pair in pairs], GreedySearch())]
        for pair, text in zip(pairs, found, strict=True):
            print(f"step {trainer.global_step}: {pair.source}\n  -> {text}\n   = {pair.target}", flush=True)
        rows = [[trainer.global_step, *pair, text] for pair, text in zip(pairs, found, strict=True)]
        for logger in trainer.loggers:
            if hasattr(logger, "log_text"):
                logger.log_text(key="translations", columns=["step", "source", "reference", "translation"], data=rows)
