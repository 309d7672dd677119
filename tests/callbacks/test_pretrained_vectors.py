"""Embeddings that start from a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from tiny_runs import TinyRun
from torch import Tensor

from callbacks import PretrainedVectors, WeightTying
from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, Seq2Seq


def table(model: LightningModule, path: str = "network.embedding") -> Tensor:
    return model.get_parameter(f"{path}.weight").detach()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Vectors of two words of the tiny run, of French and of English numbers, and of another word."""
    path = tmp_path / "vectors.txt"
    words = ["zebra", "cat", "dog", "deux", "two"]
    path.write_text("".join(f"{word} {' '.join([str(number)] * 6)}\n" for number, word in enumerate(words)))
    return path


@pytest.mark.parametrize("frozen", [False, True])
def test_words_start_from_the_file_and_stay_so_if_frozen(
    tiny_run: TinyRun, file: Path, capsys: pytest.CaptureFixture[str], frozen: bool
) -> None:
    run = tiny_run([PretrainedVectors(str(file), frozen=frozen)])
    tokenizer = run.model.text_tokenizer()
    cat, dog = tokenizer.id_of("cat"), tokenizer.id_of("dog")
    share = f"{2 / len(tokenizer):.1%}"
    assert f"vectors: 2 of the {len(tokenizer)} words of network.embedding ({share}) are in" in capsys.readouterr().out
    weight = table(run.model)
    assert [torch.equal(weight[word], torch.full([6], value)) for word, value in ((cat, 1.0), (dog, 2.0))] == [frozen] * 2
    untrained = table(tiny_run([PretrainedVectors(str(file))], trainer={"limit_train_batches": 0}).model)
    assert untrained[cat].tolist() == [1] * 6
    others = untrained[[i for i in range(len(tokenizer)) if i not in (cat, dog)]]
    assert abs(float(others.mean()) - 1.5) < 4 * 0.55 / others.numel() ** 0.5
    assert 0.3 < float(others.std()) < 0.8


def test_what_is_tied_to_the_embedding_has_the_vectors_too(tiny_run: TinyRun, file: Path) -> None:
    vectors = PretrainedVectors(str(file))
    for callbacks in ([vectors, WeightTying()], [WeightTying(), vectors]):
        model = tiny_run(callbacks, trainer={"limit_train_batches": 0}).model
        assert model.head.weight is model.network.embedding.weight
        assert table(model)[model.text_tokenizer().id_of("dog")].tolist() == [2] * 6


def test_each_side_of_a_translation_takes_its_own(make_trainer: Callable[..., Trainer], file: Path, tmp_path: Path) -> None:
    data = TranslationData(NumberPairs(limit=60), batch_size=16, cache=str(tmp_path / "cache"))
    small = partial(RecurrentNetwork, embedding_size=6, layer_sizes=[8], cell=GRU)
    model = Seq2Seq(data.source_vocab_size, data.target_vocab_size, small, partial(AttentionDecoder, network=small))
    sides = [
        PretrainedVectors(str(file), f"{part}.network.embedding", f"{side}_tokenizer", frozen=True)
        for part, side in (("encoder", "source"), ("decoder", "target"))
    ]
    make_trainer(max_epochs=1, callbacks=sides, limit_val_batches=0).fit(model, data)
    known = [("encoder", data.source_tokenizer, "two", 4.0), ("decoder", data.target_tokenizer, "deux", 3.0)]
    for part, tokenizer, word, value in known:
        ids = [i for i, token in enumerate(tokenizer.tokens(range(len(tokenizer)))) if token.strip("▁") == word]
        weight = table(model, f"{part}.network.embedding")
        assert any(torch.equal(weight[i], torch.full([6], value)) for i in ids)


def test_what_does_not_fit_is_told(tiny_run: TinyRun, file: Path) -> None:
    with pytest.raises(ValueError, match=r"has 6 numbers a word, and network\.embedding 5 features: set embedding_size to 6"):
        tiny_run([PretrainedVectors(str(file))], model={"embedding_size": 5})
    with pytest.raises(ValueError, match=r"LanguageModel has no encoder; its embeddings are network\.embedding"):
        tiny_run([PretrainedVectors(str(file), embedding="encoder")])
    with pytest.raises(ValueError, match=r"network\.embedding is OneHot and no table of \d+ words"):
        tiny_run([PretrainedVectors(str(file))], model={"embedding_size": None})
    with pytest.raises(ValueError, match="there is no source_tokenizer that knows words"):
        tiny_run([PretrainedVectors(str(file), tokenizer="source_tokenizer")])
    file.write_text("zebra 1 2 3 4 5 6\n")
    with pytest.raises(ValueError, match=r"has none of the \d+ words of the vocabulary, such as"):
        tiny_run([PretrainedVectors(str(file))])
    with pytest.raises(FileNotFoundError, match="no such file exists"):
        tiny_run([PretrainedVectors("missing.txt")])
