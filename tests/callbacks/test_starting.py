"""Starting from parts of another checkpoint."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from callbacks import StartFrom
from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, Seq2Seq

SMALL = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8], cell=GRU)


@pytest.fixture
def data(tmp_path: Path) -> TranslationData:
    return TranslationData(NumberPairs(target="es", limit=60), batch_size=16, cache=str(tmp_path / "cache"))


def make_model(data: TranslationData, seed: int, encoder: Any = SMALL) -> Seq2Seq:
    torch.manual_seed(seed)
    decoder = partial(AttentionDecoder, network=SMALL)
    return Seq2Seq(data.source_vocab_size, data.target_vocab_size, encoder, decoder)


@pytest.fixture
def checkpoint(data: TranslationData, make_trainer: Callable[..., Trainer], tmp_path: Path) -> str:
    trainer = make_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(make_model(data, 0), data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    return str(tmp_path / "first.ckpt")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_part_starts_from_what_it_was_and_stays_so_if_frozen(
    data: TranslationData, checkpoint: str, make_trainer: Callable[..., Trainer], frozen: bool
) -> None:
    first, second = Seq2Seq.load_from_checkpoint(checkpoint), make_model(data, 1)
    decoder = {name: value.clone() for name, value in second.decoder.state_dict().items()}
    start = StartFrom(checkpoint, {"encoder": "encoder"}, frozen, {"source_tokenizer": "source_tokenizer"})
    make_trainer(max_epochs=1, limit_val_batches=0, callbacks=[start]).fit(second, data)
    same = [torch.equal(value, second.encoder.state_dict()[name]) for name, value in first.encoder.state_dict().items()]
    assert all(same) if frozen else not any(same)
    assert not any(torch.equal(value, second.decoder.state_dict()[name]) for name, value in decoder.items() if value.dim() > 1)


def test_training_sets_out_from_the_copied_weights(
    data: TranslationData, checkpoint: str, make_trainer: Callable[..., Trainer]
) -> None:
    first, second = Seq2Seq.load_from_checkpoint(checkpoint), make_model(data, 1)
    parts = {"encoder": "encoder", "decoder": "decoder", "head": "head"}
    make_trainer(max_epochs=1, limit_train_batches=0, limit_val_batches=0, callbacks=[StartFrom(checkpoint, parts)]).fit(
        second, data
    )
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_what_does_not_fit_is_named(data: TranslationData, checkpoint: str, make_trainer: Callable[..., Trainer]) -> None:
    def refused(message: str, model: Seq2Seq, *arguments: Any) -> None:
        with pytest.raises(ValueError, match=message):
            make_trainer(max_epochs=1, callbacks=[StartFrom(checkpoint, *arguments)]).fit(model, data)

    with pytest.raises(ValueError, match="StartFrom: it has no part to take; name one"):
        StartFrom(checkpoint, {})
    refused(r"Seq2Seq has no part reader; it has encoder, decoder, head", make_model(data, 1), {"reader": "encoder"})
    refused(r"is \(\d+, 8\) here and not there in nothing of", make_model(data, 1), {"encoder": "nothing"})
    wide = partial(RecurrentNetwork, embedding_size=16, layer_sizes=[8], cell=GRU)
    refused(
        r"encoder\.network\.embedding\.weight is \(\d+, 16\) here and \(\d+, 8\) in",
        make_model(data, 1, wide),
        {"encoder": "encoder"},
    )
    refused(
        "vocabulary: the checkpoint's source_tokenizer has",
        make_model(data, 1),
        {"encoder": "encoder"},
        False,
        {"source_tokenizer": "target_tokenizer"},
    )
