"""The benchmarks: what they train, score and print, in a moment."""

import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Call

from datamodules.number_pairs import NumberPairs
from datamodules.sources import Split
from experiments.benchmark.alternation import Speed
from experiments.benchmark.awd_lstm import SETTING, awd_lstm
from experiments.benchmark.contestant import Contestant, Parallel
from experiments.benchmark.counts import compare, counts, smoothings
from experiments.benchmark.fastai import FastAI
from experiments.benchmark.gru import Size, gru
from experiments.benchmark.language import lm, shown
from experiments.benchmark.loss import LOSSES, loss_table, measure_losses
from experiments.benchmark.recurrences import FUSED, LAYERS, WAYS, Row, recurrences
from experiments.benchmark.recurrences import table as recurrences_table
from experiments.benchmark.scaling import Measurement, Setting, bytes_sent, scaling
from experiments.benchmark.scaling import table as scaling_table
from experiments.benchmark.translation import Outcome, Rival, bleu, in_turns, mt, table, written
from experiments.benchmark.unroll import DECODERS, Unroll
from lm.scanned import ScannedCell

NUMBERS = NumberPairs(target="es", limit=999, validation_fraction=0.05, test_fraction=0.05)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Parallel:
    """A thousand numbers, a hundred of them held out."""
    return written(NUMBERS, tmp_path_factory.mktemp("files"))


def test_files_are_the_pairs_line_by_line(files: Parallel) -> None:
    for split, pairs in NUMBERS.splits().items():
        assert list(zip(files.lines(split, "source"), files.lines(split, "target"), strict=True)) == list(pairs)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_row_learns_and_translates_in_order(files: Parallel, decoder: str) -> None:
    contestant = Unroll(decoder, "32-true", 1, files, seed=1)
    assert bleu(contestant, files, "validation", 1) < 1
    speeds = contestant.train(4, None)
    assert len(speeds) == 4
    assert min(speeds) > 0
    assert bleu(contestant, files, "validation", 1) > 3
    assert len(contestant.translate("test", 5)) == len(files.lines("test", "source"))


def test_the_command_prints_a_row_for_each_model(call: Call, files: Parallel) -> None:
    prefixes = [word for split in ("train", "validation", "test") for word in (f"--{split}", str(files.folder / split))]
    words = ["--source", "source", "--target", "target", "--epochs", "1", "--joeynmt", "false", "--first_seed", "7"]
    status, out, err = call(mt, *prefixes, *words)
    assert status == 0, err
    for decoder in DECODERS:
        assert re.search(rf"seed 7, Unroll, {decoder}, 32-true: [\d,]+ target tokens/s, BLEU [\d.]+ greedily", out)
        assert re.search(rf"│ Unroll, {decoder}, 32-true +│", out), "where there is no terminal, a table is as wide as it is"
    assert "GFLOP/s" in out


def test_a_quick_look_goes_from_model_to_model_by_epoch_and_leaves_the_first_out() -> None:
    order: list[tuple[str, int, int | None]] = []

    class Noted(Contestant):
        def __init__(self, name: str) -> None:
            self.name = name

        def train(self, epochs: int, batches: int | None) -> list[float]:
            order.append((self.name, epochs, batches))
            return [float(len(order))]

        def translate(self, split: Split, width: int) -> list[str]:
            raise NotImplementedError

    found = in_turns([Noted("ours"), Noted("theirs")], epochs=2, batches=7)
    assert order == [("ours", 1, 7), ("theirs", 1, 7)] * 3
    assert [[outcome.tokens for outcome in its] for its in found] == [[3, 5], [4, 6]]


def test_a_model_of_another_process_says_what_it_would_say_here_also_what_is_wrong(files: Parallel) -> None:
    make = partial(Unroll, next(iter(DECODERS)), "32-true", 1, files, 3)
    here, there = make(), Rival(make)
    assert there.name == here.name
    assert there.translate("test", 2) == here.translate("test", 2)
    with pytest.raises(AttributeError, match="has no attribute 'sing'"):
        there.call("sing")
    there.processes[0].kill()
    with pytest.raises(RuntimeError, match="the process of a model ended with status -9"):
        there.answer()


def test_processes_train_one_model_together_and_divide_what_they_translate(files: Parallel) -> None:
    contestant = Rival(partial(Unroll, "attention after the RNN", "32-true", 2, files, 1), processes=2)
    assert contestant.name.endswith("32-true, 2 processes")
    assert len(contestant.train(4, None)) == 4
    assert bleu(contestant, files, "validation", 1) > 3
    assert len(contestant.translate("test", 5)) == len(files.lines("test", "source"))
    contestant.close()


def test_the_scaling_table_by_hand() -> None:
    found = {
        Setting("32-true", 1): [Measurement([100.0, 120.0, 110.0], None, 10**6), Measurement([110.0], None, 10**6)],
        Setting("32-true", 3): [Measurement([200.0, 240.0, 220.0], 16.4e6, 10**6), Measurement([220.0], 16.8e6, 10**6)],
        Setting("bf16-true", 2): [Measurement([55.0], None, 10**6)] * 2,
    }
    cells = [list(column.cells) for column in scaling_table(found).columns]
    assert cells[2:4] == [["110", "220", "55"], ["1.00", "2.00", "0.50"]]
    assert cells[4:] == [["", "16.60", "not counted here"], ["", "16.00", "4.00"]]


@pytest.mark.slow
def test_processes_send_each_other_what_a_ring_would(call: Call) -> None:
    status, out, err = call(scaling, "--epochs", "1", "--batches", "8", "--rounds", "1")
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows if row[0] in ("32-true", "bf16-true")] == [
        [precision, count] for precision in ("32-true", "bf16-true") for count in ("1", "2")
    ]
    megabytes = [(float(row[4]), float(row[5])) for row in rows if row[5] and row[4] != "not counted here"]
    assert len(megabytes) >= 3 or bytes_sent() is None
    for sent, expected in megabytes:
        assert expected < sent < 1.5 * expected
    assert "16-mixed: not run, for it needs a GPU" in out or torch.cuda.is_available()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_recurrences_in_a_small_size_make_a_table_and_a_curve(precision: str, call: Call, tmp_path: Path) -> None:
    small = ["--lengths", "[4, 9]", "--batch", "2", "--hidden", "8", "--rounds", "1"]
    status, out, err = call(recurrences, "--picture", str(tmp_path / "curves" / "small.png"), *small, "--precision", precision)
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == [*LAYERS] * 2
    assert all(all(row) for row in rows if row[0] != FUSED)
    assert "4 steps, 2 sequences, 8 features" in out
    assert (tmp_path / "curves" / "small.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [name for name in LAYERS if name != FUSED])
def test_all_ways_of_a_recurrence_say_the_same(name: str) -> None:
    layer, x = LAYERS[name](5, 5), torch.randn(2, 30, 5)
    assert isinstance(layer, ScannedCell)
    said = [way(layer, x) for way in WAYS.values()]
    for one in said[1:]:
        torch.testing.assert_close(one, said[0], rtol=1e-5, atol=1e-5)


def test_the_gru_has_a_row_for_each_size_and_precision(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.benchmark.gru.SIZES", (Size("one", 2, 3, 4), Size("two", 2, 3, 4, both=True)))
    monkeypatch.setattr("experiments.benchmark.gru.product_rate", lambda dtype=torch.float32, **_: 1 + (dtype != torch.float32))
    status, out, err = call(gru, "--rounds", "1")
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [(row[0], row[2]) for row in rows] == [("one", "1"), ("one", "1"), ("two", "2"), ("two", "2")]
    assert [row[3] for row in rows] == ["32-true", "bf16-mixed"] * 2
    assert all(float(row[6]) > 0 for row in rows)


def test_the_recurrences_table_by_hand() -> None:
    times = {"at once": [0.002, 0.004], "looped": [0.006, 0.012], "stepped": [0.02, 0.02]}
    seconds = {Row(FUSED, "at once"): [0.004, 0.004], **{Row("MinGRU", way): its for way, its in times.items()}}
    cells = [list(column.cells) for column in recurrences_table(seconds, "").columns]
    assert cells[:4] == [[FUSED, "MinGRU"], ["4.0", "3.0"], ["", "9.0"], ["", "20.0"]]
    assert cells[4:] == [["", "3.00"], ["", "7.50"], ["1.00", "1.50"]]


def test_some_files_without_the_others_are_refused(call: Call) -> None:
    status, _, err = call(mt, "--train", "corpus/train")
    assert status == 1
    assert "there are no files for ['validation', 'test']: give all of ['train', 'validation', 'test'], or none" in err


def test_ratios_are_medians_over_seeds_and_what_was_not_measured_is_a_dash() -> None:
    rows = {
        "peer": [Outcome(100), Outcome(200), Outcome(100)],
        "ours": [Outcome(300), Outcome(400), Outcome(100)],
    }
    shown = table(rows)
    cells = [list(column.cells) for column in shown.columns]
    assert cells[:3] == [["peer", "ours"], ["100", "300"], ["1.00", "2.00"]]
    assert cells[3:] == [["-", "-"]] * 4
    assert math.isnan(rows["peer"][0].beam)


@pytest.mark.slow
def test_every_head_is_measured_beside_cross_entropy() -> None:
    costs = measure_losses([3000], repetitions=1)
    assert [cost.loss for cost in costs] == list(LOSSES)
    memory = {cost.loss: cost.memory for cost in costs}
    assert memory["LinearHead"] < memory["cross_entropy"]
    assert memory["AdaptiveSoftmaxHead"] < memory["cross_entropy"]
    assert loss_table(costs).row_count == len(costs)


# In place of the paper's sizes; without dropout nothing is drawn, and two implementations have to agree.
TINY = SETTING._replace(embedding_size=8, hidden_size=12, learning_rate=3.0, lanes=4, steps=7)
WITHOUT_DROPOUT: dict[str, Any] = {name: 0.0 for name in SETTING._fields if name.endswith(("_dropout", "_drop"))}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred lines of words, of which each says what comes next."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("".join(f"one two three four {word}\n" for word in ("five", "six", "seven") * 40), encoding="utf-8")
    return file


def test_awd_lstm_without_dropout_learns_what_the_plain_loop_learns(text: Path) -> None:
    ours, plain = awd_lstm(str(text), 3, None, 1e9, setting=TINY._replace(**WITHOUT_DROPOUT))
    assert plain.perplexity == pytest.approx(ours.perplexity, rel=1e-4)
    assert plain.perplexity < 7.5  # it begins at the size of the vocabulary, 10 or so


@pytest.mark.parametrize("rate", WITHOUT_DROPOUT)
def test_every_dropout_of_awd_lstm_counts_in_both(text: Path, rate: str) -> None:
    still = awd_lstm(str(text), 1, None, 1e9, setting=TINY._replace(**WITHOUT_DROPOUT))
    dropped = awd_lstm(str(text), 1, None, 1e9, setting=TINY._replace(**{**WITHOUT_DROPOUT, rate: 0.5}))
    for before, after in zip(still, dropped, strict=True):
        assert after.perplexity != before.perplexity


@pytest.mark.parametrize("penalty", ["alpha", "beta"])
def test_every_penalty_of_awd_lstm_counts_alike_in_both(text: Path, penalty: str) -> None:
    setting = TINY._replace(**WITHOUT_DROPOUT)
    still, _ = awd_lstm(str(text), 1, None, 1e9, setting=setting)
    ours, plain = awd_lstm(str(text), 1, None, 1e9, setting=setting._replace(**{**WITHOUT_DROPOUT, penalty: 9.0}))
    assert ours.perplexity != still.perplexity
    assert plain.perplexity == pytest.approx(ours.perplexity, rel=1e-4)


def test_fastai_learns_in_a_process_of_its_own(text: Path) -> None:
    pytest.importorskip("fastai")
    rates = {**WITHOUT_DROPOUT, "weight_drop": 0.1}  # its own cannot be 0: torch refuses the weights that it then sets
    *_, fastai = awd_lstm(str(text), 3, None, 1e9, [FastAI], TINY._replace(**rates))
    assert fastai.name.startswith("fastai ")
    assert fastai.perplexity < 7.5


def test_the_command_compares_the_tied_lstm_with_the_plain_loop(call: Call, tmp_path: Path, text: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text(text.read_text(encoding="utf-8") * 5, encoding="utf-8")
    status, out, err = call(lm, "--text", str(long), "--runs", "2", "--losses", "false", "--awd_lstm", "false")
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["Unroll", "plain PyTorch loop"]
    assert float(rows[0][3]) == pytest.approx(float(rows[1][3]), rel=0.01)
    assert "tied LSTM, ours/plain PyTorch loop, median of alternating epochs: " in out
    assert "AWD-LSTM" not in out


def test_the_language_table_by_hand() -> None:
    table, ratio = shown("LSTM", [Speed("Unroll", 1200.0, 0.6, 10.0, 1.0), Speed("other", 1000.0, 0.5, 20.0, 1.25)])
    assert not isinstance(table, str)
    assert [list(column.cells) for column in table.columns][1:3] == [["1,200", "1,000"], ["0.60", "0.50"]]
    assert ratio == "LSTM, ours/other, median of alternating epochs: 1.250"


@pytest.mark.parametrize("order", [2, 3])
def test_n_gram_models_give_the_probabilities_of_nltk_s(order: int) -> None:
    pytest.importorskip("nltk")
    random = np.random.default_rng(order)
    train, held_out = (np.minimum(random.geometric(0.2, length), 19) for length in (600, 150))
    for same in smoothings():
        row = compare(same, train, held_out, order, vocab_size=20)
        assert row.difference < 1e-12, row.name
        assert min(*row.counting, *row.scoring) > 0


def test_the_command_compares_n_gram_models_with_nltk_s(call: Call, text: Path) -> None:
    pytest.importorskip("nltk")
    status, out, err = call(counts, "--text", str(text), "--share", "0.01", "--rounds", "1")
    assert status == 0, err
    assert "entries, order 3" in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [float(row[-1]) < 1e-12 for row in rows] == [True] * 3
    status, _, err = call(counts, "--order", "1")
    assert (status, err) == (1, "error: benchmark: models of an order from 2 are compared, got 1\n")
