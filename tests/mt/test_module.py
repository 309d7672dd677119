"""Seq2Seq: its loss and gradients against plain PyTorch, translation, checkpoints, and what it says of wrong use."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn import functional

from callbacks import RNNRegularization, WeightTying
from datamodules.bucketing import TranslationBatch
from datamodules.number_pairs import NumberPairs
from datamodules.parallel import FileNames, ParallelFiles
from datamodules.recipes import Words
from datamodules.sources import Split
from datamodules.translation import TranslationData
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import LinearHead
from lm.layers import GRU
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead
from lm.module import HeadFactory
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.beam import BeamSearch
from mt.metrics import CorpusScore
from mt.scheduled_sampling import ScheduledSampling
from mt.search import GreedySearch

WORDS = Words(reserved_tokens=("<unk>", "<pad>", "<bos>", "<eos>"))
SMALL = partial(RecurrentNetwork, embedding_size=32, layer_sizes=[32], cell=GRU, bidirectional=True)
WRITER = partial(RecurrentNetwork, embedding_size=32, layer_sizes=[32], cell=GRU)


@pytest.fixture
def data(tmp_path: Path) -> TranslationData:
    return TranslationData(
        NumberPairs(target="es", limit=300, validation_fraction=0.1), WORDS, WORDS, batch_size=16, cache=str(tmp_path)
    )


def make_model(data: TranslationData, **settings: Any) -> Seq2Seq:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "encoder": SMALL,
        "decoder": partial(AttentionDecoder, network=WRITER),
        "optimizer": partial(torch.optim.Adam, lr=0.01),
    }
    return Seq2Seq(data.source_vocab_size, data.target_vocab_size, **parts | settings)


def batch_of(data: TranslationData) -> TranslationBatch:
    return next(iter(data.training_batches))


def loss_of(model: Seq2Seq, batch: TranslationBatch, world_size: int = 1, accumulate: int = 1) -> Tensor:
    """The training loss, outside of a Trainer."""

    class Few:
        pass

    few: Any = Few()
    few.world_size, few.accumulate_grad_batches, few.global_step = world_size, accumulate, 0
    model._trainer = few
    silent: Any = lambda *_, **__: None  # noqa: E731
    model.__dict__ |= {"log": silent, "log_dict": silent}
    try:
        loss: Tensor = model.training_step(batch, 0)["loss"]
    finally:
        model._trainer = None
        del model.__dict__["log"], model.__dict__["log_dict"]
    return loss


@pytest.mark.parametrize(
    "head", [partial(MixtureOfSoftmaxesHead, experts=3, latent_dropout=0.1), partial(AdaptiveSoftmaxHead, cutoffs=[8, 16])]
)
def test_a_head_of_several_softmaxes_translates(
    data: TranslationData, head: HeadFactory, make_trainer: Callable[..., Trainer]
) -> None:
    model, batch = make_model(data, head=head, scheduled_sampling=ScheduledSampling(start=0.5, end=0.5)), batch_of(data)
    assert loss_of(model, batch).isfinite()
    trainer = make_trainer(max_epochs=1, limit_val_batches=2)
    trainer.fit(model, data)
    found = model.translate("twelve")[0][0]
    assert found.finished
    assert model.score("twelve", found.text)[0].log_prob == pytest.approx(found.log_prob, abs=1e-4)


def test_the_loss_is_the_mean_nll_of_the_target_tokens(data: TranslationData) -> None:
    model, batch = make_model(data), batch_of(data)
    logits = functional.linear(model(batch).hidden, model.head.weight, model.head.bias)  # type: ignore[arg-type]
    padding = data.target_tokenizer.padding
    assert padding is not None
    expected = functional.cross_entropy(logits.flatten(0, 1), batch.target[:, 1:].flatten(), ignore_index=padding)
    torch.testing.assert_close(loss_of(model, batch), expected)
    assert batch.normalizer == (batch.target_lengths - 1).sum()


def test_parts_of_a_batch_add_up_to_its_gradient(data: TranslationData) -> None:
    model, batch = make_model(data), batch_of(data)
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    whole = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    for rows in (slice(0, 5), slice(5, None)):
        part = TranslationBatch._make([*(field[rows] for field in batch[:-1]), batch.normalizer])
        # Lightning divides the loss by the number of batches.
        (loss_of(model, part, accumulate=2) / 2).backward()  # type: ignore[no-untyped-call]
    parts = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_padding_changes_neither_loss_nor_gradient(data: TranslationData) -> None:
    model, batch = make_model(data), batch_of(data)
    source, target = (functional.pad(ids, (0, 3), value=1) for ids in (batch.source, batch.target))
    padded = batch._replace(source=source, target=target)
    losses = [loss_of(model, given) for given in (batch, padded)]
    torch.testing.assert_close(losses[0], losses[1])
    found = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_row_without_a_target_adds_nothing(data: TranslationData) -> None:
    model, batch = make_model(data), batch_of(data)
    nothing = TranslationBatch(
        batch.source[:1], batch.source_lengths[:1], batch.target[:1], torch.tensor([1]), torch.tensor([-1]), batch.normalizer
    )
    loss = loss_of(model, nothing)
    assert loss == 0
    assert all((part == 0).all() for part in torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize(("lowercase", "case"), [(True, "case:lc"), (False, "case:mixed")])
def test_case_counts_in_every_score_unless_told_otherwise(lowercase: bool, case: str) -> None:
    model = Seq2Seq(9, 9, lowercase=lowercase)
    scores = [found for group in (model.evaluation.greedy, model.evaluation.searched) for found in group.children()]
    assert len(scores) == 4
    for found in scores:
        assert isinstance(found, CorpusScore)
        found.update(["va maintenant mon ami !"], [["VA MAINTENANT MON AMI !"]])
        assert (float(found.compute()) > 99) == lowercase
        assert case in found.signature


@pytest.mark.parametrize("kind", [ContextDecoder, AttentionDecoder, partial(AttentionDecoder, look="before", input_feeding=True)])
def test_numbers_are_learned_translated_and_scored(
    data: TranslationData, make_trainer: Callable[..., Trainer], tmp_path: Path, kind: Callable[..., Any]
) -> None:
    model = make_model(data, decoder=partial(kind, network=WRITER), head=partial(LinearHead, label_smoothing=0.1))
    trainer = make_trainer(max_epochs=25, num_sanity_val_steps=0, gradient_clip_val=1.0)
    trainer.fit(model, data)
    (found,) = trainer.test(model, data, verbose=False)
    assert {"test/bleu", "test/bleu_search", "test/chrf", "test/chrf_search", "test/ppl"} <= found.keys()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = Seq2Seq.load_from_checkpoint(tmp_path / "model.ckpt")
    texts = [pair.source for pair in data.texts("train")]
    targets = [pair.target for pair in data.texts("train")]
    translations = loaded.translate(texts, GreedySearch())
    assert [best[0].text for best in translations] == [best[0].text for best in model.translate(texts, GreedySearch())]
    right = sum(best[0].text == target for best, target in zip(translations, targets, strict=True))
    assert right > 0.8 * len(texts)


def test_one_text_alone_or_among_others_has_one_translation(data: TranslationData) -> None:
    model = make_model(data).double()
    model.source_tokenizer, model.target_tokenizer = data.source_tokenizer, data.target_tokenizer
    texts = ["twenty three", "", "one", "ninety nine unknownword"]
    together = model.translate(texts, BeamSearch(width=3, n_best=3))
    for text, translations in zip(texts, together, strict=True):
        (alone,) = model.translate(text, BeamSearch(width=3, n_best=3))
        assert [found.tokens for found in alone] == [found.tokens for found in translations]
        assert [found.score for found in alone] == pytest.approx([found.score for found in translations], abs=1e-9)
    assert together[1][0].text == ""
    assert len(together[0]) == 3
    best = together[0][0]
    assert best.attention is not None
    assert best.attention.shape == (len(best.tokens), len(best.source_tokens))
    torch.testing.assert_close(best.attention.sum(dim=1), torch.ones(len(best.tokens), dtype=torch.float64))


def test_a_translations_log_probability_is_that_of_teacher_forcing(data: TranslationData) -> None:
    model = make_model(data).double().eval()
    model.source_tokenizer, model.target_tokenizer = data.source_tokenizer, data.target_tokenizer
    for best, *_ in model.translate(["forty two", "seven"], BeamSearch(width=4)):
        source = [data.source_tokenizer.id_of(token) for token in best.source_tokens]
        target = [data.target_tokenizer.id_of(token) for token in ["<bos>", *best.tokens]]
        batch = TranslationBatch(
            torch.tensor([source]),
            torch.tensor([len(source)]),
            torch.tensor([target]),
            torch.tensor([len(target)]),
            torch.tensor([0]),
            torch.tensor(1.0),
        )
        log_prob = model.head.log_prob(model(batch).hidden)[0].gather(1, torch.tensor(target[1:])[:, None]).sum()
        assert best.log_prob == pytest.approx(float(log_prob), abs=1e-9)


def test_a_test_scores_against_every_reference(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    def write(name: str, lines: Iterable[str]) -> str:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    source, target = map(list, zip(*NumberPairs(target="es", limit=99, test_fraction=0.2).splits()["test"], strict=True))
    files = write("source", ["", *source]), write("target", ["nada", *target])  # the first pair is left out, its references too
    sides: list[dict[Split, FileNames]] = [{"train": file, "test": file} for file in files]

    def data(references: dict[Split, FileNames]) -> TranslationData:
        source = ParallelFiles(sides[0], sides[1], references)
        return TranslationData(source, WORDS, WORDS, batch_size=4, cache=str(tmp_path / "cache"))

    model = make_model(plain := data({}), search=BeamSearch(width=3))
    model.source_tokenizer, model.target_tokenizer = plain.source_tokenizer, plain.target_tokenizer
    greedy, found = ([best.text for best, *_ in model.translate(source, search)] for search in (GreedySearch(), model.search))
    first = [text.removesuffix(" uno") if place % 3 else "" for place, text in enumerate(greedy)]
    second = [f"{text} y dos" if place % 2 else "" for place, text in enumerate(found)]
    references = [write("first", ["", *first]), write("second", ["y", *second])]
    (logged,) = make_trainer().test(model, data({"test": references}), verbose=False)
    all_three = [target, [text or None for text in first], [text or None for text in second]]
    for name, texts in {"": greedy, "_search": found}.items():
        assert logged[f"test/bleu{name}"] == pytest.approx(sacrebleu.corpus_bleu(texts, all_three).score, abs=1e-4)
        assert logged[f"test/chrf{name}"] == pytest.approx(sacrebleu.corpus_chrf(texts, all_three).score, abs=1e-4)
        assert logged[f"test/bleu{name}"] > sacrebleu.corpus_bleu(texts, [target]).score + 5


@pytest.mark.parametrize("turn", [1, -1])
def test_one_matrix_can_serve_both_embeddings_and_the_head(
    tmp_path: Path, make_trainer: Callable[..., Trainer], turn: int
) -> None:
    data = TranslationData(NumberPairs(limit=99), shared_tokenizer=WORDS, batch_size=16, cache=str(tmp_path))
    decoder = partial(AttentionDecoder, network=WRITER, output_size=32)
    model = make_model(data, decoder=decoder)
    source, target = "encoder.network.embedding", "decoder.network.embedding"
    ties = [WeightTying(source, target), WeightTying(target, "head")][::turn]
    kept = model.encoder.network.embedding.weight
    make_trainer(max_epochs=1, callbacks=[*ties, RNNRegularization()], limit_val_batches=0).fit(model, data)
    assert all(module.weight is kept for module in (model.encoder.network.embedding, model.decoder.network.embedding, model.head))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", {0: 0.8, 500: 0.8, 5000: 0.8}),
        ("linear", {0: 0.8, 500: 0.5, 1000: 0.2, 5000: 0.2}),
        ("inverse_sigmoid", {0: 0.8, 1000: 0.5, 100_000: 0.2}),
    ],
)
def test_truth_decays_as_it_is_told(decay: Any, expected: dict[int, float]) -> None:
    sampling = ScheduledSampling(decay, start=0.8, end=0.2, steps=1000)
    assert {step: sampling.truth(step) for step in expected} == pytest.approx(expected)
    if decay == "inverse_sigmoid":
        k = 190.1722087  # solves exp(1000/k) = k + 2
        assert sampling.truth(300) == pytest.approx(0.2 + 0.6 * (k + 1) / (k + 2.718281828 ** (300 / k)))


def test_scheduled_sampling_reads_the_truth_or_the_models_own_tokens(data: TranslationData) -> None:
    batch = batch_of(data)
    forced = loss_of(make_model(data), batch)
    always = loss_of(make_model(data, scheduled_sampling=ScheduledSampling("constant", 1.0)), batch)
    torch.testing.assert_close(always, forced)
    model = make_model(data, scheduled_sampling=ScheduledSampling("constant", 0.0))
    with torch.no_grad():
        model.head.get_parameter("bias")[5] = 50.0  # whatever is said, token 5 is drawn
    loss = loss_of(model, batch)
    own = batch._replace(target=batch.target.clone())
    own.target[:, 1:-1] = 5
    read = model(own).hidden
    weights = (torch.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1) / batch.normalizer
    torch.testing.assert_close(loss, model.head.loss(read, batch.target[:, 1:], weights.float()).total)


def test_scheduled_sampling_draws_neither_padding_nor_a_beginning_and_records_no_gradient(
    data: TranslationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_model(data, scheduled_sampling=ScheduledSampling("constant", 0.0)), batch_of(data)
    model.target_tokenizer = tokenizer = data.target_tokenizer
    assert tokenizer.padding is not None
    assert tokenizer.beginning is not None
    with torch.no_grad():
        model.head.get_parameter("bias")[[tokenizer.padding, tokenizer.beginning]] = 500.0
        model.head.get_parameter("bias")[5] = 50.0
    recorded: list[bool] = []
    log_prob = model.head.log_prob

    def watched(hidden: Tensor) -> Tensor:
        recorded.append(log_prob(hidden).requires_grad)
        return log_prob(hidden)

    monkeypatch.setattr(model.head, "log_prob", watched)
    next_input = model.own_tokens(batch)
    assert next_input is not None
    drawn = [next_input(1, torch.randn(len(batch.target), model.decoder.output_size, requires_grad=True)) for _ in range(20)]
    assert set(torch.stack(drawn).flatten().tolist()) == {5}
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    assert not any(recorded)


def test_a_model_without_tokenizers_says_what_to_set(data: TranslationData) -> None:
    with pytest.raises(ValueError, match=r"trained without; set model\.source_tokenizer and model\.target_tokenizer"):
        make_model(data).translate("one")


def test_data_of_another_vocabulary_is_refused(
    data: TranslationData, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    model = make_model(data)
    other = TranslationData(NumberPairs(source="fr", limit=99), WORDS, WORDS, batch_size=16, cache=str(tmp_path))
    model.source_tokenizer, model.target_tokenizer = data.source_tokenizer, data.target_tokenizer
    with pytest.raises(ValueError, match="vocabulary: the checkpoint's source_tokenizer has"):
        make_trainer(max_epochs=1).fit(model, other)


def test_a_model_that_was_validated_on_its_own_can_be_trained(
    data: TranslationData, make_trainer: Callable[..., Trainer]
) -> None:
    model = make_model(data)
    before = make_trainer().validate(model, data, verbose=False)[0]["val/loss"]  # in inference mode, whose tensors stay so
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/loss"] < before
