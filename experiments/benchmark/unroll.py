"""Our rows of the translation benchmark."""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer, seed_everything

from callbacks import GradientClipping
from datamodules import TranslationData
from datamodules.parallel import ParallelFiles
from datamodules.recipes import Words
from datamodules.sources import Split
from experiments.benchmark.contestant import SETTING, Contestant, Parallel
from experiments.benchmark.watch import BARE, Watch
from experiments.cli import quiet
from experiments.processor import prepare_processor
from lm.heads import LinearHead
from lm.layers import GRU
from lm.network import RecurrentNetwork
from lm.schedule import Schedule
from mt import AttentionDecoder, Seq2Seq
from mt.attention import AdditiveAttention, GeneralAttention
from mt.beam import BeamSearch
from mt.evaluation import real_rows
from mt.ranking import Ranking
from mt.search import GreedySearch

POOL = 8
"""Batches that are sorted by length together: a compromise between padding, of which JoeyNMT has much, and mixed lengths."""
NETWORK = partial(
    RecurrentNetwork,
    embedding_size=SETTING.size,
    layer_sizes=[SETTING.size],
    cell=GRU,
    locked_dropout=False,
    input_dropout=SETTING.dropout,
)
DECODERS = {
    "input feeding": partial(
        AttentionDecoder, network=NETWORK, attention=AdditiveAttention, input_feeding=True, joint_dropout=SETTING.dropout
    ),
    "attention after the RNN": partial(
        AttentionDecoder, network=NETWORK, attention=GeneralAttention, joint_dropout=SETTING.dropout
    ),
}
"""Bahdanau's attention with input feeding, whose steps wait for each other; and Luong's without, all steps at once."""


class Unroll(Contestant):
    """One of our models.

    Args:
        decoder: its name in DECODERS.
        precision: of the Trainer.
        processes: that share its training and its searches, of which this is one.
        files: what it is trained on.
        seed: of weights, order and dropout.
    """

    def __init__(self, decoder: str, precision: Any, processes: int, files: Parallel, seed: int) -> None:
        prepare_processor()
        quiet()
        self.name = f"Unroll, {decoder}, {precision}" + (f", {processes} processes" if processes > 1 else "")
        self.precision, self.processes = precision, processes
        seed_everything(seed, verbose=False)
        words = Words(min_frequency=SETTING.min_frequency)
        self.data = TranslationData(
            ParallelFiles(files.files("source"), files.files("target")),
            words,
            words,
            batch_size=SETTING.batch_size,
            pool=POOL,
            evaluation_batch_size=SETTING.at_once,
            max_length=SETTING.max_length,
            seed=seed,
            cache=str(files.folder / "cache"),
        )
        self.model = Seq2Seq(
            self.data.source_vocab_size,
            self.data.target_vocab_size,
            partial(NETWORK, bidirectional=True),
            DECODERS[decoder],
            partial(LinearHead, label_smoothing=SETTING.smoothing, bias=False),
            initialisation="xavier_per_gate",
            optimizer=partial(torch.optim.Adam, lr=SETTING.learning_rate, fused=True),
            schedule=Schedule(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=SETTING.decay), interval="epoch"),
        )
        self.model.source_tokenizer, self.model.target_tokenizer = self.data.source_tokenizer, self.data.target_tokenizer
        for part in self.model.modules():
            if isinstance(part, torch.nn.Embedding):
                torch.nn.init.normal_(part.weight, std=0.1)

    def train(self, epochs: int, batches: int | None) -> list[float]:
        """See Contestant."""
        watch = Watch()
        trainer = Trainer(
            max_epochs=epochs,
            precision=self.precision,
            accelerator="cpu",
            devices=self.processes,
            strategy="ddp" if self.processes > 1 else "auto",
            limit_train_batches=batches,
            callbacks=[GradientClipping(norm=SETTING.clip), watch],
            **BARE,
        )
        trainer.fit(self.model, self.data)
        return watch.speeds

    @torch.no_grad()
    def translate(self, split: Split, width: int) -> list[str]:
        """See Contestant."""
        beam = BeamSearch(width=width, ranking=Ranking(alpha=1.0, offset=5.0), patience=1)  # all as JoeyNMT's
        search = beam if width > 1 else GreedySearch()
        found: dict[int, str] = {}
        half = self.precision == "bf16-mixed"
        with self.model.evaluating(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for batches in self.data.evaluation_batches(split):
                for batch in batches:
                    rows = real_rows(batch)
                    found |= dict(zip(batch.indices[rows].tolist(), self.model.best_texts(batch, search, rows), strict=True))
        if self.processes > 1:
            parts: list[dict[int, str]] = [{}] * self.processes
            dist.all_gather_object(parts, found)
            found = {row: text for part in parts for row, text in part.items()}
        return [found[row] for row in range(len(found))]
