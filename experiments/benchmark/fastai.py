"""fastai's AWD-LSTM as a row of the language-model benchmark, where it is installed (`pip install fastai`)."""

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from datamodules import LanguageData
from datamodules.streams import Stream
from experiments.benchmark.awd_lstm import Setting
from experiments.benchmark.plain import CLIP, Other, perplexity


class FastAI(Other):
    """fastai's own learner, model, optimizer and callbacks, on our windows; from weights of its own.

    Args:
        read: makes the data.
        setting: sizes and rates.
    """

    def __init__(self, read: Callable[[], LanguageData], setting: Setting) -> None:
        from importlib.metadata import version

        from fastai.callback.training import GradientClip
        from fastai.data.core import DataLoaders
        from fastai.losses import CrossEntropyLossFlat
        from fastai.optimizer import SGD
        from fastai.text.learner import LMLearner
        from fastai.text.models.awdlstm import AWD_LSTM
        from fastai.text.models.core import get_language_model
        from fastai.torch_core import default_device

        default_device(use=False)  # the processor, as the others
        self.name = f"fastai {version('fastai')}"
        self.data = read()
        configuration = {
            "emb_sz": setting.embedding_size,
            "n_hid": setting.hidden_size,
            "n_layers": setting.layers,
            "embed_p": setting.embedding_dropout,
            "input_p": setting.input_dropout,
            "hidden_p": setting.layer_dropout,
            "output_p": setting.output_dropout,
            "weight_p": setting.weight_drop,
            "tie_weights": True,
            "out_bias": True,
        }
        self.learner = LMLearner(
            DataLoaders(Pairs(self.data.training_stream), []),  # nothing to validate after an epoch
            get_language_model(AWD_LSTM, self.data.vocab_size, configuration),
            loss_func=CrossEntropyLossFlat(),
            opt_func=partial(SGD, decouple_wd=False),
            lr=setting.learning_rate,
            wd=setting.weight_decay,
            wd_bn_bias=True,
            alpha=setting.alpha,
            beta=setting.beta,
            cbs=GradientClip(CLIP),
        )

    def train_epoch(self, epoch: int) -> None:
        """See Other."""
        self.data.training_stream.set_epoch(epoch)
        with self.learner.no_bar(), self.learner.no_logging():
            self.learner.fit(1)

    def perplexity(self) -> float:
        """See Other."""
        model = self.learner.model.eval()
        model.reset()
        return perplexity(lambda tokens, state: (model(tokens)[0], state), self.data.val_dataloader()[0])


class Pairs:
    """Windows as pairs of tokens and targets.

    Args:
        windows: of a text.
    """

    def __init__(self, windows: Stream) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((window.tokens, window.targets) for window in self.windows)
