"""A GPU computes what a CPU does: layers, heads and translation in double precision, and whole runs in each precision."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from saving import SaveAt
from torch import Tensor, nn

from callbacks import NTASGD, GradientClipping, HiddenStateReset, RNNRegularization, WeightTying, WindowRescale
from datamodules import TranslationData
from datamodules.language import LanguageData
from datamodules.number_pairs import NumberPairs
from datamodules.variable_stream import VariableStream
from lm import LanguageModel, Sampling
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell, ResetFirstGRUCell, Zoneout
from lm.dynamic_evaluation import DynamicEvaluation
from lm.heads import LinearHead
from lm.layers import GRU, LSTM, RNN, LayerFactory
from lm.minimal import MinGRU, MinLSTM
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead
from lm.module import HeadFactory
from lm.mogrifier import Mogrifier
from lm.network import RecurrentNetwork
from lm.neural_cache import NeuralCache
from lm.qrnn import QRNN
from lm.sru import SRU
from lm.weight_drop import WeightDrop
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.attention import AdditiveAttention, GeneralAttention
from mt.beam import BeamSearch
from mt.search import GreedySearch, Search
from mt.stochastic import StochasticBeamSearch

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("seed"),
]

LAYERS: dict[str, LayerFactory] = {
    "RNN": RNN,
    "GRU": GRU,
    "LSTM": LSTM,
    "GRU both ways": partial(Bidirectional, cell=GRU),
    "ElmanCell": partial(ElmanCell, layer_norm=True),
    "GRUCell": GRUCell,
    "ResetFirstGRUCell": ResetFirstGRUCell,
    "LSTMCell": LSTMCell,
    "Zoneout": Zoneout,
    "WeightDrop": WeightDrop,
    "Mogrifier": Mogrifier,
    "MinGRU": MinGRU,
    "MinLSTM": MinLSTM,
    "QRNN": partial(QRNN, window=2),
    "SRU": SRU,
    "SRU scanned": partial(SRU, peephole=False),
}
HEADS: dict[str, HeadFactory] = {
    "linear": partial(LinearHead, label_smoothing=0.1),
    "mixture": partial(MixtureOfSoftmaxesHead, experts=3),
    "adaptive": partial(AdaptiveSoftmaxHead, cutoffs=[8, 16], div_value=2.0),
}
LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the horse sees a cat and a bird ."] * 12
PRECISIONS = pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])


def on_both(module: nn.Module, run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> None:
    """Results and gradients of `run(module, *inputs)` on the GPU are those on the CPU, in double precision."""
    found = []
    for device in ("cpu", "cuda"):
        there = copy.deepcopy(module).double().to(device)
        results = run(there, *(tensor.to(device) for tensor in inputs))
        results[0].sum().backward()  # type: ignore[no-untyped-call]
        gradients = [weight.grad for weight in there.parameters() if weight.grad is not None]
        found.append([tensor.detach().cpu() for tensor in (*results, *gradients)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("padded", [False, True])
def test_layers(name: str, padded: bool) -> None:
    def run(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        y, state = layer(x, None, lengths if padded else None)
        return ((y * y.detach().cos()).sum(dim=-1), y, *state)

    layer = LAYERS[name](6, 6)
    for part in layer.modules():
        part.training = isinstance(part, nn.RNNBase)  # cuDNN wants to be training for a gradient, and dropout must not
    on_both(layer, run, torch.randn(3, 9, 6, dtype=torch.float64), torch.tensor([9, 4, 7]))


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str) -> None:
    def run(head: Any, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        loss = head.loss(hidden, targets, weights)
        return loss.total, loss.nll, head.log_prob(hidden[0])

    hidden, weights = torch.randn(4, 5, 10, dtype=torch.float64), torch.rand(4, 5, dtype=torch.float64)
    on_both(HEADS[name](10, 24), run, hidden, torch.randint(24, (4, 5)), weights)


def language_model(vocab_size: int, **settings: Any) -> LanguageModel:
    cell, optimizer = partial(WeightDrop, rate=0.3), partial(torch.optim.AdamW, lr=0.02)
    return LanguageModel(
        vocab_size, 16, [24, 16], cell, output_dropout=0.2, embedding_dropout=0.1, optimizer=optimizer, **settings
    )


def on_gpu(tmp_path: Path, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    checkpoints: dict[str, Any] = {"enable_checkpointing": False}
    return Trainer(accelerator="gpu", devices=1, default_root_dir=tmp_path, **quiet | checkpoints | settings)


def on_cpu() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)


def equipment() -> list[Any]:
    return [WeightTying(), HiddenStateReset(), GradientClipping(norm=1.0), RNNRegularization(alpha=1.0, beta=1.0)]


@PRECISIONS
@pytest.mark.parametrize("head", HEADS)
def test_a_language_model_learns(head: str, precision: Any, make_data: Callable[..., LanguageData], tmp_path: Path) -> None:
    data = make_data(LINES, validation=LINES[:8], lanes=3, steps=7, evaluation_lanes=1)
    factory = partial(AdaptiveSoftmaxHead, cutoffs=[4, 8], div_value=2.0) if head == "adaptive" else HEADS[head]
    trainer = on_gpu(tmp_path, max_epochs=20, precision=precision, callbacks=equipment()[head != "linear" :])
    trainer.fit(language_model(data.vocab_size, head=factory), data)
    assert trainer.callback_metrics["val/ppl"] < 6


def test_variable_windows_and_an_average_of_weights(make_data: Callable[..., LanguageData], tmp_path: Path) -> None:
    data = make_data(LINES, validation=LINES[:8], lanes=3, stream=VariableStream, steps=7, evaluation_lanes=1)
    callbacks = [*equipment(), WindowRescale(), NTASGD(patience=1)]
    trainer = on_gpu(tmp_path, max_epochs=20, callbacks=callbacks)
    trainer.fit(language_model(data.vocab_size), data)
    assert trainer.callback_metrics["val/ppl"] < 6


@pytest.mark.parametrize("evaluation", [NeuralCache(window=20, theta=0.3, weight=0.2), DynamicEvaluation(steps=7)])
def test_evaluations_say_what_they_say_on_a_cpu(evaluation: Any, make_data: Callable[..., LanguageData], tmp_path: Path) -> None:
    data = make_data(LINES, validation=LINES[:8], lanes=3, steps=7, evaluation_lanes=1)
    model = language_model(data.vocab_size, evaluation=evaluation)
    on_gpu(tmp_path, max_epochs=2, callbacks=equipment()).fit(model, data)
    found = []
    for trainer in (on_gpu(tmp_path), on_cpu()):
        found.append(trainer.validate(model, data, verbose=False)[0]["val/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_texts_are_written_and_scored_as_on_a_cpu(make_data: Callable[..., LanguageData], tmp_path: Path) -> None:
    data = make_data(LINES, lanes=3, steps=7)
    model = language_model(data.vocab_size)
    on_gpu(tmp_path, max_epochs=3, callbacks=equipment()).fit(model, data)
    model = model.double().eval()
    sampling = Sampling(temperature=0.9, top_p=0.95, seed=5)
    found = [(m.generate(["the cat", ""], 12, sampling), m.score(LINES[:3])) for m in (model.cpu(), copy.deepcopy(model).cuda())]
    assert found[0][0] == found[1][0]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-9)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    precision: Any, make_data: Callable[..., LanguageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    data = make_data(LINES, validation=LINES[:8], lanes=3, stream=VariableStream, steps=7, evaluation_lanes=1)

    def train(*callbacks: Any, path: Path | None = None) -> LightningModule:
        seed_everything(3, verbose=False)
        model = language_model(data.vocab_size)
        trainer = on_gpu(
            tmp_path,
            max_epochs=3,
            deterministic="warn",
            precision=precision,
            enable_checkpointing=False,
            callbacks=[*equipment(), WindowRescale(), *callbacks],
        )
        trainer.fit(model, data, ckpt_path=path, weights_only=True)
        return model

    whole = train(SaveAt(11, tmp_path / "middle.ckpt"))
    resumed = train(path=tmp_path / "middle.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


DECODERS: dict[str, Callable[..., Any]] = {
    "context": ContextDecoder,
    "after": partial(AttentionDecoder, attention=GeneralAttention),
    "before": partial(AttentionDecoder, attention=partial(AdditiveAttention, coverage=True), look="before", input_feeding=True),
}
SEARCHES: list[Search] = [GreedySearch(), BeamSearch(width=5, n_best=3), StochasticBeamSearch(width=4, seed=2)]


@PRECISIONS
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_translation_model_learns_and_translates(decoder: str, precision: Any, tmp_path: Path) -> None:
    data = TranslationData(NumberPairs(target="es", limit=100), batch_size=20, cache=str(tmp_path / "cache"))
    network = partial(RecurrentNetwork, embedding_size=32, layer_sizes=[32], cell=GRU)
    data.prepare_data()
    data.setup("fit")
    model = Seq2Seq(
        data.source_vocab_size,
        data.target_vocab_size,
        encoder=partial(network, bidirectional=True),
        decoder=partial(DECODERS[decoder], network=network),
        optimizer=partial(torch.optim.Adam, lr=0.01),
    )
    before = on_cpu().validate(model, data, verbose=False)[0]["val/loss"]
    trainer = on_gpu(tmp_path, max_epochs=6, precision=precision, callbacks=[GradientClipping(norm=1.0)])
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/loss"] < before / 2
    model = model.double().eval()
    texts = ["forty two", "", "seven", "eighty one"]
    for search in SEARCHES:
        here, there = model.cpu().translate(texts, search), copy.deepcopy(model).cuda().translate(texts, search)
        assert [[found.text for found in row] for row in there] == [[found.text for found in row] for row in here]
        scores = [[found.score for row in rows for found in row] for rows in (here, there)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-8)
