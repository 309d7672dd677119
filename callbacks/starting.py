"""Starting from parts of a model that was trained before."""

from collections.abc import Mapping

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.tokenizers import Tokenizer
from lm.checkpoint_file import read_checkpoint
from lm.matching import check_same_vocabulary
from lm.vocabulary_transfer import transferred


class StartFrom(Callback):
    """Takes parts of another checkpoint's weights before training; a run that is resumed has its own.

    Args:
        checkpoint: file of a run, of this kind of model or another.
        parts: modules of this model and where the checkpoint has them, such as `{"encoder": "encoder"}` or
            `{"decoder.network": "network"}`.
        frozen: leave these parts as they are in training.
        tokenizers: of this model and of the checkpoint, such as `{"source_tokenizer": "tokenizer"}`; for parts that hold a weight
            for each entry of a vocabulary. They have to be equal, unless `by_word` says which weights these are.
        by_word: weights of this model with a row for each entry of a vocabulary, and the tokenizer, such as
            `{"network.embedding.weight": "tokenizer"}`: each entry takes the row of the same word, and the mean of all rows where
            the checkpoint's vocabulary has no such word.

    Raises:
        FileNotFoundError, ValueError: in `setup`, if the checkpoint or a part of it does not fit.
    """

    def __init__(
        self,
        checkpoint: str,
        parts: Mapping[str, str],
        frozen: bool = False,
        tokenizers: Mapping[str, str] | None = None,
        by_word: Mapping[str, str] | None = None,
    ) -> None:
        if not parts:
            raise ValueError('StartFrom: it has no part to take; name one, such as parts: {"encoder": "encoder"}')
        self.checkpoint = checkpoint
        self.parts = dict(parts)
        self.frozen = frozen
        self.tokenizers = dict(tokenizers or {})
        self.by_word = dict(by_word or {})
        if missing := sorted(set(self.by_word.values()) - set(self.tokenizers)):
            raise ValueError(
                f"StartFrom: by_word goes by {missing[0]}, and tokenizers does not say which of the checkpoint's that is: add"
                f" tokenizers: {{{missing[0]}: tokenizer}}"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights; Lightning restores a resumed run's own after this."""
        if stage != "fit":
            return
        saved = read_checkpoint(self.checkpoint)
        vocabularies: dict[str, tuple[Tokenizer, Tokenizer]] = {}
        for own, other in self.tokenizers.items():
            text, data = saved["tokenizers"].get(other), getattr(trainer, "datamodule", None)
            if text is not None and isinstance(tokenizer := getattr(data, own, None), Tokenizer):
                vocabularies[own] = (Tokenizer.from_json(text), tokenizer)
                if own not in self.by_word.values():
                    check_same_vocabulary(own, *vocabularies[own])
        weights = saved["state_dict"] | self.in_own_order(saved["state_dict"], vocabularies)
        for own, other in self.parts.items():
            self.take(pl_module, own, other, weights)

    def in_own_order(
        self, weights: Mapping[str, Tensor], vocabularies: Mapping[str, tuple[Tokenizer, Tokenizer]]
    ) -> dict[str, Tensor]:
        """The checkpoint's weights of words, by their names there, with rows in the order of this model's vocabulary."""
        found: dict[str, Tensor] = {}
        for name, tokenizer in self.by_word.items():
            there = next(
                (f"{other}{name.removeprefix(own)}" for own, other in self.parts.items() if name.startswith(f"{own}.")), name
            )
            if there not in weights:
                raise ValueError(f"StartFrom: {self.checkpoint} has no {there} to take {name} from: correct by_word")
            if tokenizer not in vocabularies:
                raise ValueError(
                    f"StartFrom: {name} is taken word by word, and {self.checkpoint} or this data has no {tokenizer}: leave"
                    " by_word out"
                )
            theirs, ours = vocabularies[tokenizer]
            found[there], count = transferred(weights[there], theirs, ours)
            rank_zero_info(
                f"StartFrom: {count:,} of {len(ours):,} entries of {name} begin as in the checkpoint, the others as the mean"
            )
        return found

    def take(self, module: LightningModule, own: str, other: str, weights: Mapping[str, Tensor]) -> None:
        """Copy one part."""
        if own not in dict(module.named_modules()):
            names = ", ".join(name for name, _ in module.named_children())
            raise ValueError(f"StartFrom: {type(module).__name__} has no part {own}; it has {names} and what is in them")
        part = module.get_submodule(own)
        found = {name.removeprefix(f"{other}."): value for name, value in weights.items() if name.startswith(f"{other}.")}
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        expected = {name: tuple(value.shape) for name, value in part.state_dict().items()}
        if shapes != expected:
            name = next(name for name in [*expected, *shapes] if shapes.get(name) != expected.get(name))
            raise ValueError(
                f"StartFrom: {own}.{name} is {expected.get(name, 'not there')} here and {shapes.get(name, 'not there')} in"
                f" {other} of {self.checkpoint}: give both models the same settings there"
            )
        part.load_state_dict(found)
        if self.frozen:
            part.requires_grad_(False)
