"""A language model beside a hand-written PyTorch loop: `python -m experiments.benchmark lm`."""

import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from callbacks import GradientClipping, HiddenStateReset, Throughput, WeightTying
from datamodules import LanguageData, Window
from datamodules.builtin import PythonDocs
from datamodules.recipes import Words
from datamodules.sources import Files
from experiments.benchmark.loss import loss_table, measure_losses
from experiments.benchmark.machine import machine, product_rate
from experiments.cli import quiet
from lm import LanguageModel
from lm.layers import LSTM

HIDDEN, LAYERS, CLIP, LEARNING_RATE = 200, 2, 0.25, 0.002


class PlainLSTM(nn.Module):
    """The same model as a person would write it in an afternoon: torch modules, one loop, nothing else.

    Neither has dropout: from the same weights both then compute the same numbers, apart from rounding.

    Args:
        vocab_size: entries of the vocabulary.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, LAYERS, batch_first=True)
        self.decoder = nn.Linear(HIDDEN, vocab_size)
        self.decoder.weight = self.embedding.weight

    def start_from(self, model: LanguageModel) -> None:
        """Take the weights of an untrained model, so that both set out from one place."""
        weights = model.state_dict()
        own = {"embedding.weight": weights["network.embedding.weight"], "decoder.weight": weights["network.embedding.weight"]}
        for layer in range(LAYERS):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                own[f"lstm.{name}_l{layer}"] = weights[f"network.layers.{layer}.rnn.{name}_l0"]
        self.load_state_dict(own | {"decoder.bias": weights["head.bias"]})

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens `(batch, time)` and the state before them -> logits `(batch, time, vocab)`, the state after."""
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.decoder(hidden), state

    def train_epoch(self, windows: Iterable[Window], optimizer: torch.optim.Optimizer) -> None:
        """Truncated BPTT over the windows of an epoch."""
        self.train()
        state = None
        for window in windows:
            logits, state = self(window.tokens, state)
            state = (state[0].detach(), state[1].detach())
            loss = functional.cross_entropy(logits.flatten(0, 1), window.targets.flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.parameters(), CLIP)
            optimizer.step()

    @torch.no_grad()
    def perplexity(self, windows: Iterable[Window]) -> float:
        """Of a whole text."""
        self.eval()
        state, nll, count = None, 0.0, 0.0
        for window in windows:
            logits, state = self(window.tokens, state)
            losses = functional.cross_entropy(logits.flatten(0, 1), window.targets.flatten(), reduction="none")
            mask = torch.ones_like(losses) if window.mask is None else window.mask.flatten()
            nll, count = nll + float((losses * mask).sum()), count + float(mask.sum())
        return float(torch.tensor(nll / count).exp())


class Alternation(Callback):
    """Times each epoch of the Trainer, then the same epoch of the plain loop, so that both see the same machine.

    Args:
        plain: the other model.
        data: what both are trained on.
    """

    def __init__(self, plain: PlainLSTM, data: LanguageData) -> None:
        self.plain = plain
        self.windows = data.stream(data.tokens("train"), data.lanes, data.steps, data.place)
        self.optimizer = torch.optim.AdamW(plain.parameters(), lr=LEARNING_RATE)
        self.seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch on the Trainer."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it, and time the plain loop."""
        self.seconds["ours"].append(time.perf_counter() - self.started)
        self.windows.set_epoch(trainer.current_epoch)
        started = time.perf_counter()
        self.plain.train_epoch(self.windows, self.optimizer)
        self.seconds["plain"].append(time.perf_counter() - started)


class Speed(NamedTuple):
    """One row of the table.

    Attributes:
        name: of the implementation.
        tokens_per_second: median over epochs.
        share: of the machine's matrix-product rate that its products alone reach.
        perplexity: of the validation text after all epochs.
    """

    name: str
    tokens_per_second: float
    share: float
    perplexity: float


def lm(text: str | None = None, runs: int = 5, tokens: int | None = None, losses: bool = True) -> None:
    """Compare a tied LSTM of two layers of 200 units with a hand-written PyTorch loop, and its loss with plain cross-entropy.

    Args:
        text: file to train on, its last tenth held out; none for the English of Python's manual.
        runs: epochs of each, in turn.
        tokens: training tokens in an epoch; none for all there are.
        losses: measure the losses as well, which takes about two minutes.
    """
    quiet()
    console = Console()
    rate = product_rate()
    console.print(machine(rate))
    speeds = compare(text, runs, tokens, rate)
    table = Table("implementation", "tokens/s", "of the product rate", "validation perplexity")
    for row in speeds:
        table.add_row(row.name, f"{row.tokens_per_second:,.0f}", f"{row.share:.2f}", f"{row.perplexity:.2f}")
    console.print(table)
    ours, plain = speeds
    console.print(f"ours/plain, median of {runs} alternating epochs: {ours.tokens_per_second / plain.tokens_per_second:.3f}")
    if losses:
        console.print(loss_table(measure_losses()))


def compare(text: str | None, runs: int, tokens: int | None, rate: float) -> tuple[Speed, Speed]:
    """Train both for some epochs in turn."""
    seed_everything(1, verbose=False)
    source = PythonDocs() if text is None else Files(train=text, validation_fraction=0.1)
    data = LanguageData(source, Words(), lanes=20, steps=35, evaluation_lanes=10, max_tokens=tokens)
    model = LanguageModel(
        data.vocab_size,
        HIDDEN,
        [HIDDEN] * LAYERS,
        LSTM,
        initialisation="uniform",
        optimizer=partial(torch.optim.AdamW, lr=LEARNING_RATE),
    )
    plain = PlainLSTM(data.vocab_size)
    plain.start_from(model)
    alternation = Alternation(plain, data)
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        equipment = [WeightTying(), HiddenStateReset(), GradientClipping(norm=CLIP), Throughput(), alternation]
        trainer = Trainer(
            max_epochs=runs, accelerator="cpu", limit_val_batches=0, logger=CSVLogger(folder), callbacks=equipment, **quiet
        )
        trainer.fit(model, datamodule=data)
        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[WeightTying()], **quiet)
        (found,) = trainer.validate(model, datamodule=data, verbose=False)
    read = len(data.training_stream) * data.lanes * data.steps
    speeds = {name: read / statistics.median(seconds) for name, seconds in alternation.seconds.items()}
    share = {name: speed * products_per_token(data.vocab_size) / rate for name, speed in speeds.items()}
    plain_perplexity = plain.perplexity(data.val_dataloader()[0])
    return (
        Speed("Unroll", speeds["ours"], share["ours"], found["val/ppl"]),
        Speed("plain PyTorch loop", speeds["plain"], share["plain"], plain_perplexity),
    )


def products_per_token(vocab_size: int) -> float:
    """Floating-point operations of the matrix products of one training token: twice their weights, forward and twice backward."""
    weights = LAYERS * 4 * HIDDEN * 2 * HIDDEN + HIDDEN * vocab_size
    return 3 * 2 * weights
