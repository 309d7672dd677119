"""Translations by a model while it learns."""

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from callbacks.heat_map import attention_figure, pixels
from mt import Seq2Seq
from mt.evaluation import LONGEST
from mt.search import GreedySearch
from mt.translation import Translation, translate


class SampleTranslations(Callback):
    """Translates some validation sentences greedily every so many epochs, and prints the translations.

    Loggers that take text get them too, and loggers that take images, such as that of W&B, a heat map of where each one looked.

    Args:
        count: sentences, evenly spread over the validation split.
        every_n_epochs: epochs from one sample to the next.
        attention: whether to draw heat maps; none is drawn for a model without attention, or without a logger to take it.

    Raises:
        ValueError: if a count is not positive.
        TypeError: if the module does not translate.
    """

    def __init__(self, count: int = 3, every_n_epochs: int = 1, attention: bool = True) -> None:
        if count < 1 or every_n_epochs < 1:
            raise ValueError(f"SampleTranslations: both count from 1, got {count=}, {every_n_epochs=}")
        self.count = count
        self.every_n_epochs = every_n_epochs
        self.attention = attention

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
        sources = [pair.source for pair in pairs]
        found = [best[0] for best in translate([pl_module], sources, GreedySearch(), longest=LONGEST)]
        for pair, best in zip(pairs, found, strict=True):
            print(f"step {trainer.global_step}: {pair.source}\n  -> {best.text}\n   = {pair.target}", flush=True)
        rows = [[trainer.global_step, *pair, best.text] for pair, best in zip(pairs, found, strict=True)]
        for logger in trainer.loggers:
            if hasattr(logger, "log_text"):
                logger.log_text(key="translations", columns=["step", "source", "reference", "translation"], data=rows)
        self.log_attention(trainer, sources, found)

    def log_attention(self, trainer: Trainer, sources: Sequence[str], found: Sequence[Translation]) -> None:
        """Hand heat maps to the loggers that take images."""
        loggers: list[Any] = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if not (self.attention and loggers):
            return
        for number, (source, best) in enumerate(zip(sources, found, strict=True), start=1):
            if best.attention is None:
                continue
            picture = pixels(attention_figure(best.attention, best.source_tokens, best.tokens))
            # One by one: W&B shows several of one name well only if they are of one size.
            for logger in loggers:
                name, caption = f"attention/{number}", f"{source} -> {best.text}"
                logger.log_image(key=name, images=[picture], caption=[caption], step=trainer.global_step)
