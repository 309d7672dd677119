"""Text written by a language model while it learns."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer

from lm.sampling import Sampling
from lm.text_model import TextModel


class SampleText(Callback):
    """Continues prompts before training and every so many epochs; prints the texts and hands them to loggers that take text.

    Args:
        prompts: beginnings; an empty one is the beginning of a line.
        length: tokens to add at most.
        every_n_epochs: epochs from one sample to the next.
        sampling: how tokens are chosen; null for sampling at temperature 1.

    Raises:
        ValueError: if the interval is not positive.
        TypeError: if the module is no language model.
    """

    def __init__(
        self, prompts: Sequence[str] = ("",), length: int = 40, every_n_epochs: int = 1, sampling: Sampling | None = None
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"SampleText: every_n_epochs counts from 1, got {every_n_epochs}")
        self.prompts = list(prompts)
        self.length = length
        self.every_n_epochs = every_n_epochs
        self.sampling = sampling

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What the model says before it has learned anything."""
        if trainer.global_step == 0:
            self.sample(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What it says now."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.sample(trainer, pl_module)

    def sample(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and log one text for each prompt."""
        if not isinstance(pl_module, TextModel):
            raise TypeError(f"SampleText needs a TextModel, which writes text; {type(pl_module).__name__} does not")
        if not trainer.is_global_zero:
            return
        texts = pl_module.generate(self.prompts, self.length, self.sampling)
        for text in texts:
            print(f"step {trainer.global_step}: {text}", flush=True)
        for logger in trainer.loggers:
            if hasattr(logger, "log_text"):
                rows = [[trainer.global_step, prompt, text] for prompt, text in zip(self.prompts, texts, strict=True)]
                logger.log_text(key="samples", columns=["step", "prompt", "text"], data=rows)
