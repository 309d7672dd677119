"""Evaluation: in parts it gives the numbers that it gives at once, no text is too long for it, and it tells how it scores."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from corpora import GivenPairs
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from callbacks import SampleTranslations
from callbacks.translation_output import WriteTranslations
from datamodules import TranslationData
from datamodules.bucketing import TranslationBatch
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt import module as seq2seq
from mt.attention import AdditiveAttention
from mt.beam import BeamSearch
from mt.evaluation import LONGEST, TOKENS_AT_ONCE, in_parts, shortened

SMALL = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8], cell=GRU)
PAIRS = [(pair.source, pair.target) for pair in NumberPairs(target="es", limit=60).splits()["train"]]
DECODERS: dict[str, Callable[..., Any]] = {
    "context": ContextDecoder,
    "after": AttentionDecoder,
    "before": partial(AttentionDecoder, look="before", input_feeding=True),
    "coverage": partial(AttentionDecoder, attention=partial(AdditiveAttention, coverage=True)),
}


def make_model(data: TranslationData, kind: str = "after", **settings: Any) -> Seq2Seq:
    torch.manual_seed(0)
    decoder = partial(DECODERS[kind], network=SMALL)
    encoder = partial(SMALL, bidirectional=True)
    return Seq2Seq(data.source_vocab_size, data.target_vocab_size, encoder, decoder, search=BeamSearch(width=2), **settings)


def make_batch(lengths: list[tuple[int, int]]) -> TranslationBatch:
    """Rows whose every token is the row's number, and 0 for padding."""
    sides = [torch.zeros(len(lengths), max(side), dtype=torch.long) for side in zip(*lengths, strict=True)]
    for row, pair in enumerate(lengths):
        for side, length in zip(sides, pair, strict=True):
            side[row, :length] = row + 1
    source, target = (torch.tensor(side) for side in zip(*lengths, strict=True))
    return TranslationBatch(sides[0], source, sides[1], target, torch.arange(len(lengths)), torch.tensor(1.0))


def test_a_batch_that_fits_is_left_as_it_is() -> None:
    batch = make_batch([(4, 5), (3, 2)])
    (part,) = in_parts(batch, 10)
    assert part is batch


def test_a_long_text_has_a_part_to_itself_and_every_row_comes_once() -> None:
    batch = make_batch([(3, 2), (100, 3), (2, 4), (4, 4), (2, 60), (1, 2)])
    parts = list(in_parts(batch, 12))
    assert [part.indices.tolist() for part in parts] == [[5, 0, 2], [3], [4], [1]]
    for part in parts:
        assert part.source.shape == (len(part.indices), part.source_lengths.max())
        assert part.target.shape == (len(part.indices), part.target_lengths.max())
        for row, number in enumerate(part.indices.tolist()):
            assert part.source[row, : part.source_lengths[row]].tolist() == [number + 1] * batch.source_lengths[number]
            assert part.target[row, : part.target_lengths[row]].tolist() == [number + 1] * batch.target_lengths[number]


def test_a_text_is_cut_to_its_first_tokens_and_its_end() -> None:
    tokens = torch.tensor([[5, 6, 7, 8, 2], [5, 6, 7, 2, 0], [5, 2, 0, 0, 0], [2, 0, 0, 0, 0]])
    lengths = torch.tensor([5, 4, 2, 1])
    kept, kept_lengths = shortened(tokens, lengths, 2)
    assert kept.tolist() == [[5, 6, 2], [5, 6, 2], [5, 2, 0], [2, 0, 0]]
    assert kept_lengths.tolist() == [3, 3, 2, 1]
    assert all(torch.equal(*pair) for pair in zip(shortened(tokens, lengths, 4), (tokens, lengths), strict=True))


@pytest.mark.parametrize("kind", DECODERS)
def test_an_evaluation_in_parts_says_what_one_at_once_says(
    kind: str, tmp_path: Path, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TranslationData(GivenPairs(PAIRS, test=PAIRS[:25]), batch_size=10, cache=str(tmp_path / "cache"))
    model = make_model(data, kind, tokenization="char")
    callbacks = [WriteTranslations()]
    (whole,) = make_trainer().test(model, data, verbose=False)
    make_trainer(callbacks=callbacks).predict(model, data)
    translations = (tmp_path / "translations.txt").read_text()
    monkeypatch.setattr(seq2seq, "TOKENS_AT_ONCE", 12)
    monkeypatch.setattr(seq2seq, "PLACES_AT_ONCE", 24)
    (parts,) = make_trainer().test(model, data, verbose=False)
    make_trainer(callbacks=callbacks).predict(model, data)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert whole["test/chrf_search"] > 0
    assert (tmp_path / "translations.txt").read_text() == translations


class Told(CSVLogger):
    """Remembers what hyper-parameters it was given."""

    calls: list[dict[str, str]]

    def log_hyperparams(self, params: Any = None) -> None:
        self.calls = [*getattr(self, "calls", []), params]
        super().log_hyperparams(params)


def test_loggers_are_told_once_how_scores_are_computed(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    data = TranslationData(GivenPairs(PAIRS, PAIRS[:20], PAIRS[:9]), cache=str(tmp_path / "cache"))
    model = make_model(data, lowercase=True, tokenization="char")
    logger = Told(tmp_path / "logs", name="", version="")
    trainer = make_trainer(max_epochs=3, logger=logger, num_sanity_val_steps=1)
    trainer.fit(model, data)
    bleu, chrf = BLEU(tokenize="char", lowercase=True), CHRF(lowercase=True)
    for scorer in (bleu, chrf):
        scorer.corpus_score(["a"], [["a"]])
    told = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    validated = {f"val/{name}_signature": signature for name, signature in told.items()}
    assert logger.calls == [validated]
    trainer.test(model, data, verbose=False)
    tested = {f"test/{name}{search}_signature": signature for name, signature in told.items() for search in ("", "_search")}
    assert logger.calls == [validated, tested]
    assert yaml.safe_load((tmp_path / "logs" / "hparams.yaml").read_text()) == validated | tested


def test_a_line_of_ten_thousand_words_is_evaluated_beside_short_ones(
    tmp_path: Path, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = AdditiveAttention.score

    def score(self: AdditiveAttention, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        assert len(keys) * keys.shape[1] <= TOKENS_AT_ONCE
        assert len(queries) * queries.shape[1] * keys.shape[1] <= seq2seq.PLACES_AT_ONCE
        return looked(self, queries, keys, coverage)

    monkeypatch.setattr(AdditiveAttention, "score", score)
    source, target = "one " * 10_000, "uno " * 10_000
    validation, test = [*PAIRS, (source, "uno"), ("one", target)], [*PAIRS[:30], (source, target), *PAIRS[30:]]
    data = TranslationData(GivenPairs(PAIRS, validation, test), cache=str(tmp_path / "cache"))
    model = make_model(data)
    trainer = make_trainer(max_epochs=1, callbacks=[SampleTranslations(2), WriteTranslations()], num_sanity_val_steps=0)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/ppl"].isfinite()
    with pytest.warns(UserWarning, match=f"of texts with more than {LONGEST} tokens, an evaluation translates the first"):
        (found,) = trainer.test(model, data, verbose=False)
    assert {"test/ppl", "test/bleu", "test/bleu_search"} <= found.keys()
    trainer.predict(model, data)
    lines = (tmp_path / "translations.txt").read_text().splitlines()
    assert lines[30] == model.translate("one " * LONGEST)[0][0].text
    assert len(lines) == len(test)
