"""JoeyNMT as a row of the translation benchmark, where it is installed (`pip install joeynmt importlib_metadata`)."""

import contextlib
import io
import logging
import time
import warnings
from pathlib import Path
from typing import Any

from datamodules.sources import SPLITS, Split
from experiments.benchmark.contestant import SETTING, Contestant, Parallel


class JoeyNMT(Contestant):
    """JoeyNMT's own trainer and search on a model of the same equations as our row with input feeding.

    Args:
        files: what it is trained on.
        seed: of weights, order and dropout.
    """

    def __init__(self, files: Parallel, seed: int) -> None:
        warnings.filterwarnings("ignore", module="joeynmt")
        from importlib.metadata import version

        import datasets
        from joeynmt.config import parse_global_args
        from joeynmt.prediction import prepare
        from joeynmt.training import TrainManager

        datasets.disable_progress_bars()
        for name in logging.root.manager.loggerDict:
            if name.startswith("joeynmt"):
                logging.getLogger(name).setLevel(logging.ERROR)
        self.name = f"JoeyNMT {version('joeynmt')}"
        folder = files.folder / f"joeynmt_{seed}"
        folder.mkdir()
        self.args = parse_global_args(configuration(files, folder, seed), mode="train")
        self.model, *sets = prepare(self.args, rank=0, mode="train")
        self.sets = dict(zip(SPLITS, sets, strict=True))
        self.manager = TrainManager(
            rank=0,
            model=self.model,
            model_dir=folder,
            device=self.args.device,
            n_gpu=self.args.n_gpu,
            autocast=self.args.autocast,
            seed=seed,
            train_args=self.args.train,
            dev_args=self.args.test,
        )

    def train(self, epochs: int, batches: int | None) -> list[float]:
        """See Contestant."""
        speeds, stats = [], self.manager.stats
        for epoch in range(1, epochs + 1):  # one at a time, to be timed
            stats.epochs, stats.is_max_update = epoch, False
            last = stats.steps + (batches or 10**9)
            self.manager.args = self.manager.args._replace(epochs=epoch, max_updates=last)
            before, started = stats.total_tokens, time.perf_counter()
            self.manager.train_and_validate(self.sets["train"], self.sets["validation"])
            speeds.append((stats.total_tokens - before) / (time.perf_counter() - started))
        return speeds

    def translate(self, split: Split, width: int) -> list[str]:
        """See Contestant."""
        from joeynmt.prediction import predict

        settings = self.args.test._replace(beam_size=width, eval_metrics=[])
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            _, _, texts, *_ = predict(
                self.model, self.sets[split], self.args.device, self.args.n_gpu, args=settings, autocast=self.args.autocast
            )
        found: list[str] = texts
        return found


def configuration(files: Parallel, folder: Path, seed: int) -> dict[str, Any]:
    """What a JoeyNMT configuration file would say."""
    network = {
        "type": "recurrent",
        "rnn_type": "gru",
        "num_layers": 1,
        "embeddings": {"embedding_dim": SETTING.size},
        "hidden_size": SETTING.size,
        "dropout": SETTING.dropout,
    }
    side = {"level": "word", "voc_min_freq": SETTING.min_frequency, "max_length": SETTING.max_length}
    return {
        "name": "benchmark",
        "model_dir": str(folder),
        "use_cuda": False,
        "random_seed": seed,
        "data": {
            "train": str(files.folder / "train"),
            "dev": str(files.folder / "validation"),
            "test": str(files.folder / "test"),
            "dataset_type": "plain",
            "src": {"lang": "source", **side},
            "trg": {"lang": "target", **side},
        },
        "testing": {
            "beam_size": SETTING.width,
            "beam_alpha": 1.0,
            "batch_size": SETTING.at_once,
            "batch_type": "sentence",
            "max_output_length": SETTING.max_length,
        },
        "training": {
            "optimizer": "adam",
            "learning_rate": SETTING.learning_rate / SETTING.decay,  # it decays before the first epoch
            "scheduling": "exponential",
            "decrease_factor": SETTING.decay,
            "clip_grad_norm": SETTING.clip,
            "loss": "crossentropy",
            "label_smoothing": SETTING.smoothing,
            "normalization": "tokens",
            "batch_size": SETTING.batch_size,
            "batch_type": "sentence",
            "early_stopping_metric": "loss",
            "validation_freq": 10**9,
            "overwrite": True,
        },
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "normal",
            "embed_init_weight": 0.1,
            "bias_initializer": "zeros",
            "encoder": {**network, "bidirectional": True},
            "decoder": {
                **network,
                "hidden_dropout": SETTING.dropout,
                "input_feeding": True,
                "init_hidden": "bridge",
                "attention": "bahdanau",
            },
        },
    }
