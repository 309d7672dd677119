"""LanguageModel: its loss, its memory, its evaluation, and the texts it writes and weighs."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.nn.functional import cross_entropy

from datamodules.language import LanguageData
from datamodules.recipes import Bytes, Characters, Words
from datamodules.streams import CompleteStream, SequentialStream, SlidingStream, Window
from datamodules.tokenizers import Tokenizer
from lm.base import NonFiniteLossError
from lm.bidirectional import Bidirectional
from lm.cells import GRUCell, LSTMCell
from lm.heads import LinearHead
from lm.layers import GRU, LSTM, RNN
from lm.module import LanguageModel
from lm.prediction import Prediction
from lm.qrnn import QRNN
from lm.sampling import Sampling
from lm.sru import SRU

VOCAB, LANES, STEPS = 9, 3, 6
MakeTrainer = Callable[..., Trainer]
MakeData = Callable[..., LanguageData]
RHYME = ["twinkle twinkle little star", "how i wonder what you are", "up above the world so high", "like a diamond in the sky"]

pytestmark = pytest.mark.usefixtures("seed")


def tiny(**settings: Any) -> LanguageModel:
    return LanguageModel(**{"vocab_size": VOCAB, "embedding_size": 5, "layer_sizes": [7, 6], **settings})


def windows(count: int = 2, masked: bool = False) -> list[Window]:
    """Windows that follow each other."""
    text = torch.randint(VOCAB, (LANES, count * STEPS + 1))
    mask = (torch.rand(LANES, STEPS) < 0.6).float() if masked else None
    return [
        Window(text[:, start : start + STEPS], text[:, start + 1 : start + STEPS + 1], mask)
        for start in range(0, count * STEPS, STEPS)
    ]


def silent(model: LanguageModel) -> LanguageModel:
    """A model whose steps can be called without a Trainer."""
    model.log = model.log_dict = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    return model


def logits(model: LanguageModel, hidden: Tensor) -> Tensor:
    assert isinstance(model.head, LinearHead)
    assert model.head.bias is not None
    return hidden @ model.head.weight.T + model.head.bias


def with_tokenizer(model: LanguageModel, tokenizer: Tokenizer) -> LanguageModel:
    model.tokenizer = tokenizer
    return model.eval()


def words_model(**settings: Any) -> LanguageModel:
    tokenizer = Words().train(RHYME)
    model = LanguageModel(**{"vocab_size": len(tokenizer), "embedding_size": 8, "layer_sizes": [12], **settings})
    for parameter in model.parameters():
        parameter.data.mul_(4)  # far from uniform
    return with_tokenizer(model, tokenizer)


class TestLoss:
    @pytest.mark.parametrize("masked", [True, False])
    @pytest.mark.parametrize("loss_at", ["every", "last"])
    def test_it_is_the_mean_cross_entropy_of_what_is_predicted(self, loss_at: str, masked: bool) -> None:
        model = silent(tiny(loss_at=loss_at))
        (window,) = windows(1, masked)
        nll = cross_entropy(logits(model, model(window.tokens).hidden).flatten(0, 1), window.targets.flatten(), reduction="none")
        counted = torch.ones(LANES, STEPS) if window.mask is None else window.mask.clone()
        if loss_at == "last":
            counted[:, :-1] = 0
        expected = (nll.view(LANES, STEPS) * counted).sum() / counted.sum()
        loss = model.training_step(window, 0)["loss"]
        torch.testing.assert_close(loss, expected)
        for ours, plain in zip(
            torch.autograd.grad(loss, list(model.parameters())),
            torch.autograd.grad(expected, list(model.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
        assert model.train_metrics.tokens == counted.sum()
        assert model.train_metrics.compute()["ppl"].item() == pytest.approx(expected.exp().item(), rel=1e-5)

    def test_a_window_without_a_target_has_no_loss(self) -> None:
        (window,) = windows(1)
        nothing = Window(window.tokens, window.targets, torch.zeros(LANES, STEPS))
        assert silent(tiny()).training_step(nothing, 0)["loss"] == 0

    def test_terms_are_added_to_it(self) -> None:
        model = silent(tiny(carry=False))
        (window,) = windows(1)
        plain = model.training_step(window, 0)["loss"]
        terms = {"one": lambda output: output.hidden.new_tensor(1.0), "mean": lambda output: output.raw.mean()}
        model.add_loss_terms(terms)
        torch.testing.assert_close(model.training_step(window, 0)["loss"], plain + 1 + model(window.tokens).raw.mean())
        with pytest.raises(ValueError, match="loss terms: one is there already"):
            model.add_loss_terms({"one": terms["one"]})
        model.remove_loss_terms(terms)
        torch.testing.assert_close(model.training_step(window, 0)["loss"], plain)

    def test_at_the_start_it_is_that_of_a_guess(self) -> None:
        (window,) = windows(1)
        assert silent(tiny(initialisation="normal")).training_step(window, 0)["loss"].item() == pytest.approx(
            math.log(VOCAB), rel=1e-3
        )


class TestCarriedState:
    @pytest.mark.parametrize("cell", [RNN, GRU, LSTM, LSTMCell, GRUCell, SRU, partial(QRNN, window=2)])
    def test_two_windows_are_one_long_window(self, cell: Any) -> None:
        model = tiny(cell=cell)
        first, second = windows()
        whole = model(torch.cat([first.tokens, second.tokens], dim=1))
        outputs = [model.window_loss(window, "train")[0] for window in (first, second)]
        torch.testing.assert_close(torch.cat([output.hidden for output in outputs], dim=1), whole.hidden)
        torch.testing.assert_close(model.carried_state("train"), whole.state)

    def test_no_gradient_flows_from_one_window_to_the_one_before(self) -> None:
        model = tiny()
        first, second = windows()
        before = model.window_loss(first, "train")[0]
        before.hidden.retain_grad()
        assert before.state is not None
        for layer in before.state:
            for part in layer:
                part.retain_grad()
        loss = model.window_loss(second, "train")[1].total
        loss.backward()  # type: ignore[no-untyped-call]
        assert before.hidden.grad is None
        assert all(part.grad is None for layer in before.state for part in layer)
        state = model.carried_state("train")
        assert state is not None
        assert not any(part.requires_grad for layer in state for part in layer)

    def test_without_carry_every_window_starts_from_zeros(self) -> None:
        model = tiny(carry=False)
        first, second = windows()
        model.window_loss(first, "train")
        output, _ = model.window_loss(second, "train")
        torch.testing.assert_close(output.hidden, model(second.tokens).hidden)
        assert model.carried_state("train") is None

    def test_stages_and_loaders_do_not_mix(self) -> None:
        model = tiny()
        first, second = windows()
        for stage, loader in (("train", 0), ("val", 0), ("val", 1)):
            output, _ = model.window_loss(first, stage, loader)
            torch.testing.assert_close(output.hidden, model(first.tokens).hidden)
        model.reset_state("val")
        assert model.carried_state("val", 0) is model.carried_state("val", 1) is None
        assert model.carried_state("train") is not None
        fresh, _ = model.window_loss(second, "val")
        torch.testing.assert_close(fresh.hidden, model(second.tokens).hidden)

    def test_it_is_kept_in_fp32(self) -> None:
        model = tiny(cell=LSTM)
        first, second = windows()
        with torch.autocast("cpu", torch.bfloat16):
            for window in (first, second):
                loss = model.window_loss(window, "train")[1].total
        loss.backward()  # type: ignore[no-untyped-call]
        state = model.carried_state("train")
        assert state is not None
        assert {part.dtype for layer in state for part in layer} == {torch.float32}

    def test_it_is_no_part_of_the_weights(self) -> None:
        model = tiny()
        before = set(model.state_dict())
        model.window_loss(windows()[0], "train")
        assert set(model.state_dict()) == before
        assert not dict(model.named_buffers())


def text_perplexity(model: LanguageModel, tokens: Tensor) -> float:
    """In one pass over the whole text."""
    with torch.no_grad():
        return cross_entropy(logits(model, model(tokens[None, :-1]).hidden)[0], tokens[1:]).exp().item()


class TestEvaluation:
    @pytest.mark.parametrize("steps", [1, 4, 50, 1000])
    @pytest.mark.parametrize("stage", ["val", "test"])
    def test_in_one_lane_windows_of_any_size_give_the_perplexity_of_one_pass(
        self, make_trainer: MakeTrainer, stage: str, steps: int
    ) -> None:
        model = tiny()
        tokens = torch.randint(VOCAB, (200,))
        trainer = make_trainer()
        run = trainer.validate if stage == "val" else trainer.test
        for _ in range(2):  # the second starts from no past either
            (metrics,) = run(model, CompleteStream(tokens.numpy(), 1, steps), verbose=False)
            assert metrics[f"{stage}/ppl"] == pytest.approx(text_perplexity(model.eval(), tokens), rel=1e-5)
            assert metrics[f"{stage}/loss"] == pytest.approx(math.log(metrics[f"{stage}/ppl"]), rel=1e-5)

    def test_in_several_lanes_each_part_is_read_by_itself(self, make_trainer: MakeTrainer) -> None:
        """23 tokens in 4 lanes: parts that begin at 0, 6, 12 and 18, with 6, 6, 6 and 4 targets."""
        model = tiny()
        tokens = torch.randint(VOCAB, (23,))
        (metrics,) = make_trainer().validate(model, CompleteStream(tokens.numpy(), 4, 5), verbose=False)
        model.eval()
        nll, hits = 0.0, 0
        for start, end in ((0, 6), (6, 12), (12, 18), (18, 22)):
            with torch.no_grad():
                scores = logits(model, model(tokens[None, start:end]).hidden)[0]
            nll += cross_entropy(scores, tokens[start + 1 : end + 1], reduction="sum").item()
            hits += int((scores.argmax(dim=-1) == tokens[start + 1 : end + 1]).sum())
        assert metrics["val/ppl"] == pytest.approx(math.exp(nll / 22), rel=1e-5)
        assert metrics["val/accuracy"] == pytest.approx(hits / 22)

    def test_without_carry_each_window_is_read_by_itself(self, make_trainer: MakeTrainer) -> None:
        model = tiny(carry=False)
        tokens = torch.randint(VOCAB, (13,))
        (metrics,) = make_trainer().validate(model, CompleteStream(tokens.numpy(), 1, 4), verbose=False)
        parts = [text_perplexity(model.eval(), tokens[start : start + 5]) for start in (0, 4, 8)]
        assert metrics["val/loss"] == pytest.approx(sum(map(math.log, parts)) / 3, rel=1e-5)

    def test_only_last_positions_count_where_only_they_are_learnt(self, make_trainer: MakeTrainer) -> None:
        model = tiny(loss_at="last")
        tokens = torch.randint(VOCAB, (13,))
        (metrics,) = make_trainer().validate(model, CompleteStream(tokens.numpy(), 1, 4), verbose=False)
        with torch.no_grad():
            scores = logits(model.eval(), model(tokens[None, :-1]).hidden)[0, 3::4]
        assert metrics["val/loss"] == pytest.approx(cross_entropy(scores, tokens[1:][3::4]).item(), rel=1e-5)

    def test_dropout_and_loss_terms_do_not_reach_it(self, make_trainer: MakeTrainer) -> None:
        model = tiny(input_dropout=0.5, layer_dropout=0.5, output_dropout=0.5)
        model.add_loss_terms({"large": lambda output: output.hidden.new_tensor(100.0)})
        tokens = torch.randint(VOCAB, (50,))
        (metrics,) = make_trainer().test(model, CompleteStream(tokens.numpy(), 1, 9), verbose=False)
        assert metrics["test/ppl"] == pytest.approx(text_perplexity(model.eval(), tokens), rel=1e-5)

    @pytest.mark.parametrize(("recipe", "unit"), [(Characters(), "character"), (Bytes(), "byte"), (Words(), None)])
    def test_bits_are_counted_where_tokens_add_up_to_the_text(
        self, make_trainer: MakeTrainer, make_data: MakeData, recipe: Any, unit: str | None
    ) -> None:
        data = make_data(RHYME, RHYME[:2], tokenizer=recipe, line_end=None, lanes=1, steps=3)
        (metrics,) = make_trainer().validate(tiny(vocab_size=data.vocab_size), data, verbose=False)
        assert {name for name in metrics if "bits" in name} == ({f"val/bits_per_{unit}"} if unit else set())
        if unit:
            assert metrics[f"val/bits_per_{unit}"] == pytest.approx(metrics["val/loss"] / math.log(2), rel=1e-5)

    def test_prediction_stands_beside_the_truth_and_starts_from_no_past(self, make_trainer: MakeTrainer) -> None:
        model = tiny()
        tokens = torch.randint(VOCAB, (12,))
        with torch.no_grad():
            expected = logits(model.eval(), model(tokens[None, :-1]).hidden)[0].argmax(dim=-1)
        for _ in range(2):
            batches = make_trainer().predict(model, CompleteStream(tokens.numpy(), 1, 4))
            assert batches is not None
            found = [batch for batch in batches if isinstance(batch, Prediction)]
            assert {batch.columns for batch in found} == {("target", "predicted")}
            rows = [tuple(map(int, row)) for batch in found for row in batch.rows]  # ids, for there is no tokenizer
            assert rows == list(zip(tokens[1:].tolist(), expected.tolist(), strict=True))

    def test_a_model_of_last_words_predicts_these_alone(self, make_trainer: MakeTrainer) -> None:
        tokens = torch.randint(VOCAB, (13,))
        batches = make_trainer().predict(tiny(loss_at="last", carry=False), CompleteStream(tokens.numpy(), 1, 4))
        assert batches is not None
        found = [row for batch in batches if isinstance(batch, Prediction) for row in batch.rows]
        assert [int(target) for target, _ in found] == tokens[4::4].tolist()

    def test_evaluating_within_training_leaves_the_state_of_training_alone(self, make_trainer: MakeTrainer) -> None:
        tokens = torch.randint(VOCAB, (100,)).numpy()

        def train(validation: list[CompleteStream]) -> LanguageModel:
            torch.manual_seed(1)
            model = tiny()
            trainer = make_trainer(max_steps=10, val_check_interval=2, num_sanity_val_steps=1)
            trainer.fit(model, SequentialStream(tokens, 2, 4), validation)
            return model

        for one, other in zip(train([]).parameters(), train([CompleteStream(tokens, 4, 9)]).parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


class Watched(LanguageModel):
    """Keeps the losses of training."""

    losses: list[float]

    def on_train_start(self) -> None:
        self.losses = []

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        assert isinstance(outputs, dict)
        self.losses.append(float(outputs["loss"]))


def learn(make_trainer: MakeTrainer, data: LanguageData, steps: int = 150, **settings: Any) -> Watched:
    model = Watched(
        data.vocab_size, 16, [32], optimizer=partial(torch.optim.Adam, lr=0.02), **{"head": LinearHead, "carry": True, **settings}
    )
    make_trainer(max_steps=steps, limit_val_batches=0).fit(model, data)
    return model.eval()


class TestLearning:
    def test_a_short_text_is_learnt_by_heart(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        model = learn(make_trainer, make_data(RHYME, lanes=1, steps=8))
        assert model.losses[0] > 2.5
        assert sum(model.losses[-5:]) / 5 < 0.1
        assert model.generate("how i wonder", 10, Sampling(temperature=0)) == [RHYME[1]]
        assert model.score([RHYME[1]])[0].log_prob > model.score(["how i wonder what the star"])[0].log_prob + 2

    def test_from_the_right_it_writes_the_beginning_of_a_line(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        model = learn(make_trainer, make_data(RHYME, lanes=1, steps=8, direction="right_to_left"), direction="right_to_left")
        assert model.generate("what you are", 10, Sampling(temperature=0)) == [RHYME[1]]

    def test_only_the_last_position_of_sliding_windows_is_enough(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        data = make_data(RHYME, lanes=8, steps=3, stream=partial(SlidingStream, stride=1), seed=1)
        model = learn(make_trainer, data, loss_at="last", carry=False)
        assert sum(model.losses[-5:]) / 5 < 0.2

    def test_the_same_seed_trains_the_same_weights(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        def train() -> Watched:
            torch.manual_seed(5)
            return learn(make_trainer, make_data(RHYME, lanes=2, steps=4), steps=10, output_dropout=0.5)

        one, other = train(), train()
        assert one.losses == other.losses

    def test_the_perplexity_of_an_epoch_is_logged_over_its_tokens(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        data = make_data(RHYME, lanes=1, steps=5)
        model = Watched(data.vocab_size, 4, [4])
        trainer = make_trainer(max_epochs=1)
        trainer.fit(model, data)
        mean = sum(model.losses) / len(model.losses)  # windows of one size
        assert trainer.callback_metrics["train/ppl_epoch"].item() == pytest.approx(math.exp(mean), rel=1e-5)


class TestDirections:
    def test_from_the_right_is_from_the_left_on_the_reversed_text(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        """Same weights, one reads "a b c" from the right, the other "c b a" from the left."""
        turned = [" ".join(reversed(line.split())) for line in reversed(RHYME)]
        right = make_data(RHYME, RHYME, lanes=1, steps=5, line_end=None, direction="right_to_left", evaluation_lanes=1)
        left = make_data(turned, turned, lanes=1, steps=5, line_end=None, evaluation_lanes=1)
        left_model = LanguageModel(left.vocab_size, 8, [8])
        right_model = LanguageModel(right.vocab_size, 8, [8], direction="right_to_left")
        # Words of one frequency are numbered in alphabetical order, whatever the order of the text.
        assert left.tokenizer.to_json() == right.tokenizer.to_json()
        right_model.load_state_dict(left_model.state_dict())
        metrics = [
            make_trainer().validate(model, data, verbose=False) for model, data in ((left_model, left), (right_model, right))
        ]
        assert metrics[0] == metrics[1]
        left_model.eval(), right_model.eval()
        for line, reverse in zip(RHYME, reversed(turned), strict=True):
            (one,), (other,) = left_model.score([reverse]), right_model.score([line])
            assert one.tokens == other.tokens
            assert torch.equal(one.nll, other.nll)
            (written,) = left_model.generate(reverse, 5, Sampling(seed=3))
            assert right_model.generate(line, 5, Sampling(seed=3)) == [" ".join(reversed(written.split()))]

    def test_a_model_and_data_that_read_differently_are_refused(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        data = make_data(RHYME, lanes=1, steps=5, direction="right_to_left")
        with pytest.raises(ValueError, match="the model reads left_to_right and its data right_to_left; set both"):
            make_trainer().fit(tiny(vocab_size=data.vocab_size), data)

    def test_bidirectional_layers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="a language model predicts what a bidirectional layer has already read"):
            tiny(cell=Bidirectional)


def test_a_state_cannot_be_carried_over_shuffled_windows(make_trainer: MakeTrainer, make_data: MakeData) -> None:
    data = make_data(RHYME, lanes=1, steps=5, stream=SlidingStream)
    with pytest.raises(ValueError, match=r"a state cannot be carried over windows drawn at random; set model\.carry false"):
        make_trainer().fit(tiny(vocab_size=data.vocab_size), data)


class TestScore:
    def test_it_is_the_sum_of_the_log_probabilities(self) -> None:
        model = words_model()
        tokenizer = model.text_tokenizer()
        (found,) = model.score(["how i wonder"])
        end = tokenizer.id_of("<eos>")
        ids = [end, *tokenizer.encode("how i wonder"), end]
        with torch.no_grad():
            log_prob = logits(model, model(torch.tensor([ids[:-1]])).hidden)[0].log_softmax(dim=-1)
        expected = [-log_prob[place, token].item() for place, token in enumerate(ids[1:])]
        assert found.tokens == ["how", "i", "wonder", "<eos>"]
        assert found.nll.tolist() == pytest.approx(expected, rel=1e-4)
        assert found.log_prob == pytest.approx(-sum(expected), rel=1e-5)
        assert found.perplexity == pytest.approx(math.exp(sum(expected) / 4), rel=1e-5)

    def test_a_line_is_scored_alike_alone_and_beside_others(self) -> None:
        model = words_model()
        texts = [*RHYME, "", "star", "star star star star star star star star star"]
        for text, together in zip(texts, model.score(texts), strict=True):
            (alone,) = model.score([text])
            assert alone.tokens == together.tokens
            torch.testing.assert_close(alone.nll, together.nll, rtol=1e-5, atol=1e-5)

    def test_empty_lines_and_unknown_words_have_a_probability(self) -> None:
        empty, unknown = words_model().score(["", "zebra star"])
        assert empty.tokens == ["<eos>"]
        assert unknown.tokens == ["<unk>", "star", "<eos>"]
        assert empty.log_prob < 0
        assert math.isfinite(unknown.log_prob)

    def test_without_a_token_that_begins_a_line_the_first_one_is_not_scored(self) -> None:
        tokenizer = Characters().train(["abc"])
        model = with_tokenizer(LanguageModel(len(tokenizer), 4, [4]), tokenizer)
        empty, one, three = model.score(["", "a", "abc"])
        assert (empty.tokens, one.tokens, three.tokens) == ([], [], ["b", "c"])
        assert (empty.log_prob, empty.perplexity, one.log_prob, one.perplexity) == (0, 1, 0, 1)
        assert len(three.nll) == 2
        for texts in ([""], ["a"]):
            assert [score.tokens for score in model.score(texts)] == [[]]

    def test_no_text_no_score(self) -> None:
        assert words_model().score([]) == []

    def test_all_continuations_of_a_line_have_probability_1_together(self) -> None:
        """Texts of one character and all that could end or go on after it."""
        tokenizer = Characters(reserved_tokens=["<unk>", "<eos>"]).train(["ab"])
        model = with_tokenizer(LanguageModel(len(tokenizer), 4, [4]), tokenizer)
        total = sum(math.exp(-float(score.nll[0])) for score in model.score(["", "a", "b", "é"]))
        assert total == pytest.approx(1, rel=1e-5)

    def test_it_leaves_training_mode_as_it_was(self) -> None:
        model = words_model(output_dropout=0.9).train()
        first, second = model.score(["how i wonder"] * 2)
        assert torch.equal(first.nll, second.nll)  # no dropout
        assert model.training
        assert model.network.training
        model.eval().score(["how"])
        assert not model.training

    def test_without_a_tokenizer_there_is_no_text(self) -> None:
        for attempt in (lambda: tiny().score(["a"]), lambda: tiny().generate("a")):
            with pytest.raises(ValueError, match="this model was trained without one"):
                attempt()


class TestGenerate:
    def test_each_prompt_comes_back_with_its_continuation(self) -> None:
        texts = words_model().generate(["how i", "up"], 5, Sampling(seed=1))
        assert texts[0].startswith("how i")
        assert texts[1].startswith("up")
        assert all(len(text.split()) <= 2 + 5 for text in texts)

    def test_it_is_what_scoring_finds_most_probable(self) -> None:
        model = words_model()
        (text,) = model.generate("how", 1, Sampling(temperature=0))
        (chosen,) = model.score([text])
        for word in ("star", "world", "diamond", "sky", "are"):
            assert chosen.nll[1] <= model.score([f"how {word}"])[0].nll[1] + 1e-6

    def test_an_empty_prompt_begins_a_line(self) -> None:
        model = words_model()
        (text,) = model.generate("", 3, Sampling(seed=2))
        assert 0 <= len(text.split()) <= 3
        assert model.generate([""], 3, Sampling(seed=2)) == [text]

    def test_an_empty_prompt_needs_a_token_that_begins_a_line(self) -> None:
        tokenizer = Characters().train(["abc"])
        model = with_tokenizer(LanguageModel(len(tokenizer), 4, [4]), tokenizer)
        assert len(model.generate("a", 3)[0]) == 4
        with pytest.raises(ValueError, match="this vocabulary has none that begins a line; give some text"):
            model.generate(["a", ""], 3)

    def test_unknown_words_are_read_and_none_is_written_unless_allowed(self) -> None:
        model = words_model()
        assert isinstance(model.head, LinearHead)
        assert model.head.bias is not None
        model.head.bias.data[model.text_tokenizer().id_of("<unk>")] = 1000.0
        (text,) = model.generate("zebra star", 8, Sampling(temperature=0))
        assert text.startswith("<unk> star")
        assert "<unk>" not in text.removeprefix("<unk> star")
        assert model.generate("star", 3, Sampling(temperature=0), allow_unknown=True) == ["star <unk> <unk> <unk>"]

    def test_a_text_ends_where_its_line_ends(self) -> None:
        model = words_model()
        assert isinstance(model.head, LinearHead)
        assert model.head.bias is not None
        model.head.bias.data[model.text_tokenizer().id_of("<eos>")] = 1000.0
        assert model.generate(["how i", ""], 8) == ["how i", ""]

    def test_padding_and_beginnings_are_never_written(self) -> None:
        tokenizer = Words(reserved_tokens=["<unk>", "<pad>", "<bos>", "<eos>"]).train(RHYME)
        model = with_tokenizer(LanguageModel(len(tokenizer), 4, [4]), tokenizer)
        assert isinstance(model.head, LinearHead)
        assert model.head.bias is not None
        model.head.bias.data[:3] = 1000.0
        texts = " ".join(model.generate([""] * 20, 10))
        assert "<" not in texts
        assert model.start_token() == tokenizer.id_of("<bos>")

    def test_no_prompt_no_text(self) -> None:
        assert words_model().generate([]) == []

    def test_it_leaves_training_mode_as_it_was(self) -> None:
        model = words_model(output_dropout=0.9).train()
        texts = [model.generate("how", 8, Sampling(temperature=0)) for _ in range(3)]
        assert texts[0] == texts[1] == texts[2]
        assert model.training
        with pytest.raises(ValueError, match="got length 0"):
            model.generate("how", 0)
        assert model.training


class Poisoned(LanguageModel):
    """Whose loss is nan from the third step on."""

    def training_step(self, batch: Window, batch_index: int) -> dict[str, Any]:
        if self.global_step == 2:
            self.add_loss_terms({"poison": lambda output: output.hidden.sum() * math.nan})
        return super().training_step(batch, batch_index)


def test_a_loss_that_is_no_number_stops_before_the_weights_change(
    make_trainer: MakeTrainer, make_data: MakeData, tmp_path: Path
) -> None:
    data = make_data(RHYME, lanes=1, steps=5)
    model = Poisoned(data.vocab_size, 4, [4])
    saving = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = make_trainer(callbacks=[saving], enable_checkpointing=True, max_epochs=3)
    with pytest.raises(NonFiniteLossError, match=r"it is nan at step 2; .* resume from it with a smaller learning rate"):
        trainer.fit(model, data)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=1.ckpt", "step=2.ckpt"]
    kept = Poisoned.load_from_checkpoint(tmp_path / "step=2.ckpt")
    for (name, weight), saved in zip(model.named_parameters(), kept.parameters(), strict=True):
        assert torch.equal(weight, saved), name
        assert weight.isfinite().all()


def test_a_copy_is_a_model_of_its_own() -> None:
    model = tiny()
    twin = copy.deepcopy(model)
    assert twin.arguments == model.arguments
    tokens = windows()[0].tokens
    torch.testing.assert_close(twin(tokens).hidden, model(tokens).hidden)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert model(tokens).hidden.any()


def test_a_model_that_was_validated_on_its_own_can_be_trained(make_trainer: MakeTrainer, make_data: MakeData) -> None:
    data = make_data(RHYME, validation=RHYME[:2], lanes=2, steps=4)
    model = tiny(vocab_size=data.vocab_size)
    before = make_trainer().validate(model, data, verbose=False)[0]["val/loss"]  # in inference mode, whose tensors stay so
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/loss"] < before
