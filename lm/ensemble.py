"""Several language models as one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.streams import Window
from lm.evaluation import Evaluation, Reader, Reading, StaticEvaluation, Text
from lm.module import LanguageModel


@dataclass(kw_only=True)
class Ensemble(Evaluation):
    """The mean of the probabilities that the model and others give to each word.

    Args:
        checkpoints: files of the other models, which share its vocabulary.

    Raises:
        ValueError: if there is none.
    """

    checkpoints: Sequence[str]

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError("Ensemble: it has no other member; give the checkpoint of at least one")

    def begin(self, model: LanguageModel, text: Text) -> Reader:
        """See Evaluation."""
        with torch.inference_mode(False):  # weights that are made in that mode do not tell when they change
            members = [model, *(self.member(path, model) for path in self.checkpoints)]
        readers = [StaticEvaluation().begin(member, text) for member in members]

        def read(window: Window) -> Reading:
            readings = [reader(window) for reader in readers]
            log_prob = torch.stack([-reading.nll for reading in readings]).logsumexp(dim=0) - math.log(len(readings))
            return Reading(-log_prob, None, readings[0].raw)

        return read

    def member(self, path: str, model: LanguageModel) -> LanguageModel:
        """A model from its checkpoint, beside the one that it joins.

        Raises:
            ValueError: if it predicts other words, or reads in another way.
        """
        member = LanguageModel.load_from_checkpoint(path)
        texts = [None if part.tokenizer is None else part.tokenizer.to_json() for part in (member, model)]
        if member.vocab_size != model.vocab_size or (None not in texts and texts[0] != texts[1]):
            raise ValueError(
                f"Ensemble: {path} has another vocabulary, of {member.vocab_size} entries where this model has"
                f" {model.vocab_size}: give models that were trained with one tokenizer"
            )
        for name in ("direction", "loss_at"):
            if (its := getattr(member, name)) != (own := getattr(model, name)):
                raise ValueError(f"Ensemble: {path} has {name}={its} and this model {own}: give models that read alike")
        return member.to(device=model.device, dtype=next(model.parameters()).dtype).eval()
