"""A translation model on the command line: trained, tested, and translating files, pipes and what is typed."""

import csv
import io
import math
from functools import partial
from pathlib import Path

import pytest
import sacrebleu
import torch
from commands import Call, Command

from datamodules.number_pairs import NumberPairs
from experiments.translate import translate
from mt import Seq2Seq
from mt.search import GreedySearch


@pytest.fixture
def call(call: Call) -> Call:
    """call(words, ...): translate in this process; its status, standard output and error."""
    return partial(call, translate, optional="file")


@pytest.fixture
def best(translator: Path) -> Path:
    return translator / "checkpoints" / "best.ckpt"


def test_a_run_learns_and_keeps_the_weights_of_the_highest_bleu(translator: Path, best: Path) -> None:
    with (translator / "metrics.csv").open() as file:
        bleu = [float(row["val/bleu"]) for row in csv.DictReader(file) if row["val/bleu"]]
    assert len(bleu) == 5
    saved = torch.load(best, weights_only=True)
    assert saved["epoch"] == 5 * bleu.index(max(bleu)) + 4
    assert max(bleu) > 60


def test_predictions_are_translations_in_order_and_test_gives_their_bleu(
    cli: Command, translator: Path, best: Path, tmp_path: Path
) -> None:
    words = ["--config", translator.parent / "experiment.yaml", "--ckpt_path", best, "--data.cache", translator.parent / "cache"]
    assert cli("predict", *words, "--run_folder", tmp_path / "predicted").status == 0
    lines = (tmp_path / "predicted" / "translations.txt").read_text().splitlines()
    pairs = list(NumberPairs(target="es", limit=300).splits()["test"])
    assert len(lines) == len(pairs)
    expected = sacrebleu.corpus_bleu(lines, [[pair.target for pair in pairs]]).score
    done = cli("test", *words, "--run_folder", tmp_path / "tested")
    assert done.status == 0
    assert f"bleu_search: {expected:.2f} (nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in done.out
    with (tmp_path / "tested" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["test/bleu_search"]) == pytest.approx(expected, abs=1e-3)
    assert float(row["test/bleu"]) <= float(row["test/bleu_search"]) + 1e-6


def test_lines_are_translated_in_order_and_an_empty_one_stays_empty(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("two hundred seven\n\nthree\nninety one\n")
    status, out, err = call(best, tmp_path / "lines.txt", "--beam", "1", "--batch_size", "2")
    assert status == 0, err
    lines = out.splitlines()
    model = Seq2Seq.load_from_checkpoint(best)
    texts = ["two hundred seven", "", "three", "ninety one"]
    assert lines == [model.translate(text, GreedySearch())[0][0].text for text in texts]
    assert lines[1] == ""


def test_standard_input_n_best_and_scores(call: Call, best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("forty two\n"))
    status, out, err = call(best, "--beam", "4", "--n_best", "3", "--scores", "true", "--alpha", "0")
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    scores = [float(row[0]) for row in rows]
    assert len(rows) == 3
    assert scores == sorted(scores, reverse=True)
    assert scores == [float(row[1]) for row in rows]  # alpha 0 ranks by log P itself
    assert sum(math.exp(score) for score in scores) < 1


def test_two_of_one_model_are_an_ensemble_that_equals_it(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one hundred eleven\ntwenty\n")
    alone = call(best, tmp_path / "lines.txt", "--scores", "true")
    together = call(best, tmp_path / "lines.txt", "--scores", "true", "--ensemble", best)
    assert alone == together


def test_attention_is_drawn_or_shown(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("thirty three\n\nsix\n")
    status, _, err = call(best, tmp_path / "lines.txt", "--attention", tmp_path / "maps")
    assert status == 0, err
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"1.1.png", "3.1.png"}
    shown = call(best, tmp_path / "lines.txt", "--attention", "terminal")[1]
    assert shown.count("─── ") == 2
    assert "█" in shown


def test_what_cannot_be_is_refused_in_a_sentence(call: Call, best: Path, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n")
    assert "there is no file nothere.txt; give a text file, or pipe text in" in call(best, "nothere.txt")[2]
    assert "batch_size, longest and n_best count from 1, got 0, 1000 and 1" in call(best, "x", "--batch_size", "0")[2]
    assert (
        "GreedySearch finds 1, not 2; give --beam 2 or more"
        in call(best, tmp_path / "lines.txt", "--beam", "1", "--n_best", "2")[2]
    )
    language_model = trained / "checkpoints" / "best.ckpt"
    assert "holds a lm.module.LanguageModel, not a Seq2Seq" in call(language_model, tmp_path / "lines.txt")[2]


def test_a_long_line_is_read_as_far_as_told(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one " * 10_000 + "\none one\n")
    status, out, err = call(best, tmp_path / "lines.txt", "--longest", "2", "--scores", "true")
    assert status == 0, err
    first, second = out.splitlines()
    assert first == second
