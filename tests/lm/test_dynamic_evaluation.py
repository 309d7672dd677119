"""Dynamic evaluation: against a plain loop, what it leaves alone, what it learns, and what it refuses."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import Trainer
from readings import VOCAB, logits, nll_of, stream, text, tiny
from torch import Tensor
from torch.nn.functional import cross_entropy

from callbacks import WeightTying
from datamodules.language import LanguageData
from datamodules.streams import CompleteStream
from lm.cells import GRUCell, Zoneout
from lm.dynamic_evaluation import DynamicEvaluation
from lm.evaluation import StaticEvaluation
from lm.module import LanguageModel
from lm.neural_cache import NeuralCache
from lm.update_rule import RMS, GradientDescent, root_mean_squares
from lm.weight_drop import WeightDrop

MakeTrainer = Callable[..., Trainer]
MakeData = Callable[..., LanguageData]
LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the horse sees a cat ."] * 3
NEW = ["a dog likes a dog ."] * 20

pytestmark = pytest.mark.usefixtures("seed")


def plain(**settings: Any) -> DynamicEvaluation:
    return DynamicEvaluation(rule=GradientDescent(), **settings)


def segment_losses(model: LanguageModel, tokens: Tensor, steps: int) -> Any:
    """nll of each segment in turn, of the weights that the model has by then."""
    state = None
    for start in range(0, tokens.shape[1] - 1, steps):
        target = tokens[:, start + 1 : start + steps + 1]
        output = model(tokens[:, start : start + target.shape[1]], state)
        state = tuple(tuple(part.detach() for part in layer) for layer in output.state)
        yield cross_entropy(logits(model, output.hidden).flatten(0, 1), target.flatten(), reduction="none").view_as(target)


def looped(model: LanguageModel, tokens: Tensor, steps: int, rate: float, decay: float, sizes: list[Tensor] | None) -> Tensor:
    """nll by the equations of the paper, from r of each weight, or without any; the model's own weights change."""
    weights = list(model.parameters())
    first = [weight.detach().clone() for weight in weights]
    if sizes is None:
        rates, decays = [torch.tensor(rate)] * len(weights), [torch.tensor(decay)] * len(weights)
    else:
        mean = sum(float(size.mean()) for size in sizes) / len(sizes)
        rates = [rate / (size + 2e-5) for size in sizes]
        decays = [decay * (size / mean).clamp(max=1 / decay) for size in sizes]
    found = []
    for nll in segment_losses(model, tokens[None], steps):
        found.append(nll.detach()[0])
        gradients = torch.autograd.grad(nll.mean(), weights)
        for weight, start, gradient, eta, back in zip(weights, first, gradients, rates, decays, strict=True):
            weight.data = weight.data + back * (start - weight.data) - eta * gradient
    return torch.cat(found)


class TestSteps:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"cell": GRUCell},
            {"embedding_dropout": 0.5, "input_dropout": 0.5, "output_dropout": 0.5},
            {"cell": WeightDrop},
            {"cell": Zoneout},
        ],
    )
    def test_gradient_descent_is_a_plain_loop(self, settings: dict[str, Any]) -> None:
        model, tokens = tiny(**settings), text(48)
        found = nll_of(plain(learning_rate=0.5, decay=0.1), model, stream(tokens, 15))
        expected = looped(copy.deepcopy(model), tokens, 5, 0.5, 0.1, None)
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, nll_of(StaticEvaluation(), model, stream(tokens, 15)), rtol=1e-2)

    @pytest.mark.parametrize("tied", [True, False])
    def test_with_statistics_it_is_a_plain_loop_too(self, make_trainer: MakeTrainer, make_data: MakeData, tied: bool) -> None:
        data = make_data(LINES, test=NEW, lanes=1, steps=10, evaluation_lanes=1, max_tokens=3 * 27 + 1)  # which fill 3 lanes
        evaluation = DynamicEvaluation(learning_rate=0.002, decay=0.2, rule=RMS(lanes=3))
        model = tiny(vocab_size=data.vocab_size, embedding_size=6, layer_sizes=[6], evaluation=evaluation)
        (metrics,) = make_trainer(callbacks=[WeightTying()] if tied else []).test(model, data, verbose=False)
        weights = list(model.parameters())
        assert len(weights) == (6 if tied else 7)
        squares = [torch.zeros_like(weight) for weight in weights]
        rows = torch.from_numpy(data.tokens("train").astype("int64"))
        lanes = torch.stack([rows[start : start + 28] for start in (0, 27, 54)])
        count = 0
        for nll in segment_losses(model, lanes, 5):
            count += 1
            for square, gradient in zip(squares, torch.autograd.grad(nll.mean(), weights), strict=True):
                square += gradient**2
        sizes = [(square / count).sqrt() for square in squares]
        expected = looped(model, torch.from_numpy(data.tokens("test").astype("int64")), 5, 0.002, 0.2, sizes)
        assert metrics["test/loss"] == pytest.approx(expected.mean().item(), rel=1e-4)

    def test_sizes_decide_steps_by_hand(self) -> None:
        """Sizes 1 and 3 of one tensor, 6 of another: a mean of (2 + 6) / 2 = 4, D of 1/4, 3/4 and 3/2; λ·D at most 1."""
        sizes = [torch.tensor([1.0, 3.0]), torch.tensor([6.0])]
        one, other = RMS(epsilon=1.0).scaled(sizes, learning_rate=2.0, decay=0.8)
        assert one.pull.tolist() == pytest.approx([0.2, 0.6])
        assert other.pull.tolist() == [1]
        assert one.push.tolist() == [1, 0.5]
        assert other.push.tolist() == pytest.approx([2 / 7])

    def test_sizes_are_of_the_first_windows_where_they_are_enough(self) -> None:
        model, tokens = tiny(), text(90)
        windows = list(stream(tokens, 5, lanes=4))
        first = RMS().scaled(root_mean_squares(copy.deepcopy(model), windows[:2]), 0.1, 0.1)
        some, whole = (RMS(lanes=4, windows=count).steps(model, tokens.numpy, 5, 0.1, 0.1) for count in (2, None))
        torch.testing.assert_close(some, first)
        assert not torch.allclose(whole[0].push, first[0].push, rtol=1e-2)


class TestReading:
    @pytest.mark.parametrize("steps", [10, 35, 100])
    def test_windows_of_any_number_of_segments_read_alike(self, steps: int) -> None:
        model, tokens = tiny(), text(98)
        found = [nll_of(plain(learning_rate=0.5, decay=0.01), model, stream(tokens, size)) for size in (5, steps)]
        torch.testing.assert_close(found[1], found[0])

    def test_without_steps_it_is_the_model_as_it_is(self, make_trainer: MakeTrainer, make_data: MakeData) -> None:
        data = make_data(LINES, test=NEW, lanes=4, steps=10, evaluation_lanes=1)
        model = tiny(vocab_size=data.vocab_size)
        (static,) = make_trainer().test(model, data, verbose=False)
        for evaluation in (plain(learning_rate=0, decay=0), DynamicEvaluation(learning_rate=0, decay=0)):
            model.evaluation = evaluation
            (metrics,) = make_trainer().test(model, data, verbose=False)
            assert metrics["test/ppl"] == pytest.approx(static["test/ppl"], rel=1e-6)

    def test_the_model_comes_out_as_it_went_in(self, make_trainer: MakeTrainer) -> None:
        model = tiny(evaluation=plain(learning_rate=0.5), output_dropout=0.5).train()
        before = copy.deepcopy(model.state_dict())
        trainer, windows = make_trainer(), stream(text(60), 10)
        one, other = (trainer.test(model, windows, verbose=False) for _ in range(2))
        assert one == other  # the second learns from the start again
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
        assert model.training
        assert model.network.training
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not model.readers

    def test_what_comes_again_is_learnt(self) -> None:
        model, tokens = tiny(), text(10).repeat(20)
        dynamic = nll_of(plain(learning_rate=1.0), model, stream(tokens, 10))[0]
        static = nll_of(StaticEvaluation(), model, stream(tokens, 10))[0]
        assert dynamic[100:].mean() < 0.7 * static[100:].mean()

    def test_a_cache_may_look_at_its_states(self) -> None:
        model, windows = tiny(), stream(text(50), 10)
        dynamic = plain(learning_rate=0.5)
        found = nll_of(NeuralCache(window=30, weight=0, base=dynamic), model, windows)
        torch.testing.assert_close(found, nll_of(dynamic, model, windows))
        still = nll_of(NeuralCache(window=30, base=plain(learning_rate=0, decay=0)), model, windows)
        torch.testing.assert_close(still, nll_of(NeuralCache(window=30), model, windows))

    def test_in_mixed_precision_it_learns_within_a_window(self, make_trainer: MakeTrainer) -> None:
        """Casts of the weights, which autocast remembers to the end of a window, would be those of its first segment."""
        model, windows = tiny(), stream(text(10).repeat(20), 200)
        static = make_trainer().test(model, windows, verbose=False)[0]["test/loss"]
        model.evaluation = plain(learning_rate=1.0)
        exact, half = (
            make_trainer(precision=precision).test(model, windows, verbose=False)[0]["test/loss"]
            for precision in ("32-true", "bf16-mixed")
        )
        assert exact < 0.8 * static
        assert half == pytest.approx(exact, rel=0.03)

    @pytest.mark.parametrize("inference_mode", [True, False])
    def test_either_mode_of_the_trainer_will_do(self, make_trainer: MakeTrainer, inference_mode: bool) -> None:
        model, windows = tiny(evaluation=plain(learning_rate=0.5)), stream(text(31), 10)
        (metrics,) = make_trainer(inference_mode=inference_mode).validate(model, windows, verbose=False)
        assert model.evaluation is not None
        assert metrics["val/loss"] == pytest.approx(nll_of(model.evaluation, model, windows).mean().item(), rel=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"learning_rate": -1}, "learning_rate is a number from 0, got -1"),
            ({"decay": 1.5}, "decay is a share of the way back, from 0 to 1, got 1.5"),
            ({"steps": 0}, "steps counts the words of a segment from 1, got 0"),
        ],
    )
    def test_arguments_out_of_range(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DynamicEvaluation(**settings)

    def test_statistics_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="lanes and windows count from 1, got 0 and None"):
            RMS(lanes=0)
        with pytest.raises(ValueError, match="epsilon keeps steps finite, a number above 0, got 0"):
            RMS(epsilon=0)

    def test_a_text_in_parts_or_in_windows_of_broken_segments(self) -> None:
        with pytest.raises(ValueError, match=r"this one is cut into 2 lanes: set data\.evaluation_lanes 1"):
            nll_of(plain(), tiny(), stream(text(40), 10, lanes=2))
        with pytest.raises(ValueError, match=r"windows of 12 steps cannot be cut into segments of 5: set data\.steps to a mul"):
            nll_of(plain(), tiny(), stream(text(40), 12))

    def test_statistics_without_training_data(self, make_trainer: MakeTrainer) -> None:
        model = tiny(evaluation=DynamicEvaluation())
        with pytest.raises(TypeError, match=r"has no data .* or set model\.evaluation\.rule lm\.update_rule\.Gradient"):
            make_trainer().test(model, stream(text(40), 10), verbose=False)

    def test_weights_that_were_tied_and_are_not(self) -> None:
        model = tiny(embedding_size=6)
        model.head.load_state_dict({"weight": model.network.embedding.weight, "bias": torch.zeros(VOCAB)})
        with pytest.raises(ValueError, match=r"network\.embedding\.weight and head\.weight hold the same numbers"):
            nll_of(plain(), model, stream(text(40), 10))

    @pytest.mark.parametrize("settings", [{"carry": False}, {"loss_at": "last"}])
    def test_models_that_do_not_read_on(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="DynamicEvaluation follows a text from word to word, and this model has carry="):
            nll_of(plain(), tiny(**settings), stream(text(40), 10))

    def test_half_precision_weights(self, make_trainer: MakeTrainer) -> None:
        model = tiny(evaluation=plain())
        with pytest.raises(ValueError, match=r"computed with in torch\.bfloat16, .* set trainer\.precision to 32-true or bf16-m"):
            make_trainer(precision="bf16-true").test(model, CompleteStream(text(40).numpy(), 1, 10), verbose=False)
