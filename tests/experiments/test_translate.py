"""A translation model on the command line: trained, tested, and translating files, pipes and what is typed."""

import csv
import io
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
import yaml
from commands import Call, Command, piped

from datamodules.number_pairs import NumberPairs
from experiments.translate import chosen_search, translate
from lm.sampling import Sampling
from mt import ContextDecoder, Seq2Seq
from mt.beam import BeamSearch
from mt.constraints import Constraints
from mt.diverse import DiverseBeamSearch
from mt.exhaustive import ExhaustiveSearch
from mt.ranking import Ranking
from mt.sampled import SamplingSearch
from mt.search import GreedySearch, Search
from mt.stochastic import StochasticBeamSearch
from mt.translation import translate as translate_texts


@pytest.fixture
def call(call: Call) -> Call:
    """call(words, ...): translate in this process; its status, standard output and error."""
    return partial(call, translate, optional="file")


@pytest.fixture
def best(translator: Path) -> Path:
    return translator / "checkpoints" / "best.ckpt"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("three\ntwo hundred seven\nsix\n\n")
    return path


def saved(model: Seq2Seq, path: Path) -> Path:
    """A checkpoint of a model."""
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_half_precision_says_nearly_the_same_with_nearly_the_same_scores(call: Call, best: Path, lines: Path) -> None:
    whole, half = (call(best, lines, "--scores", "true", *more) for more in ((), ("--half", "true")))
    assert whole.status == half.status == 0, half.err
    table = [[line.split("\t") for line in done.out.splitlines()] for done in (whole, half)]
    for (score, *_, text), (other, *_, same) in zip(*table, strict=True):
        assert text == same
        assert float(score) == pytest.approx(float(other), rel=0.05, abs=0.02)
    assert whole.out != half.out, "scores in half precision have other digits"


@pytest.fixture
def knowing_nothing(best: Path, tmp_path: Path) -> Path:
    """A model to which every word is unknown."""
    model = Seq2Seq.load_from_checkpoint(best)
    assert model.target_tokenizer is not None
    assert model.target_tokenizer.unknown is not None
    model.head.get_parameter("bias").data[model.target_tokenizer.unknown] = 1e3
    return saved(model, tmp_path / "knowing_nothing.ckpt")


@pytest.fixture
def without_attention(best: Path, tmp_path: Path) -> Path:
    trained = Seq2Seq.load_from_checkpoint(best)
    model = Seq2Seq(trained.arguments["source_vocab_size"], trained.arguments["target_vocab_size"], decoder=ContextDecoder)
    model.source_tokenizer, model.target_tokenizer = trained.source_tokenizer, trained.target_tokenizer
    return saved(model, tmp_path / "without_attention.ckpt")


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
    monkeypatch.setattr("sys.stdin", piped("forty two\n"))
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
    assert "batch_size, longest and n_best count from 1, got 0, 1000 and None" in call(best, "x", "--batch_size", "0")[2]
    assert (
        "GreedySearch finds 1, not 2; give --beam 2 or more"
        in call(best, tmp_path / "lines.txt", "--beam", "1", "--n_best", "2")[2]
    )
    language_model = trained / "checkpoints" / "best.ckpt"
    assert "holds a lm.module.LanguageModel, not a Seq2Seq" in call(language_model, tmp_path / "lines.txt")[2]


def test_a_long_line_is_read_as_far_as_told(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one one\n" + "one " * 10_000 + "\none\n")
    status, out, err = call(best, tmp_path / "lines.txt", "--longest", "2", "--scores", "true")
    assert status == 0, err
    first, second, _ = out.splitlines()
    assert first == second
    assert err == "line 2: only the first 2 of its 10000 tokens are read, see --longest\n"


def test_ten_thousand_words_on_a_line_are_translated_as_far_as_they_are_read(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("six\n" + "one " * 10_000 + "\n")
    status, out, err = call(best, tmp_path / "lines.txt")
    assert status == 0, err
    assert len(out.splitlines()) == 2
    assert err == "line 2: only the first 1000 of its 10000 tokens are read, see --longest\n"


def test_translations_reach_their_file_and_a_bar_the_terminal(best: Path, lines: Path, tmp_path: Path) -> None:
    master, slave = os.openpty()
    with (tmp_path / "out.txt").open("wb") as out:
        words = [sys.executable, "-m", "experiments.translate", str(best), str(lines), "--beam", "1"]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=slave,
            cwd=Path(__file__).parent.parent.parent,
            env={**os.environ, "TERM": "xterm"},
        )
    os.close(slave)
    shown = os.read(master, 2**16).decode()
    os.close(master)
    assert done.returncode == 0, shown
    assert "4 sentences, " in shown
    assert "tres" not in shown
    assert (tmp_path / "out.txt").read_text().splitlines() == ["tres", "doscientos siete", "seis", ""]


@pytest.mark.parametrize(("on_a_terminal", "bar"), [(["stderr"], True), (["stderr", "stdout"], False), (["stdout"], False)])
def test_no_bar_stands_among_translations_on_one_screen(
    call: Call, best: Path, lines: Path, monkeypatch: pytest.MonkeyPatch, on_a_terminal: list[str], bar: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream in on_a_terminal:
        monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True)
    status, out, err = call(best, lines, "--beam", "1")
    assert status == 0, err
    assert out.splitlines()[1] == "doscientos siete"
    assert ("sentences" in err) == bar


def test_what_is_typed_is_translated_line_by_line(call: Call, best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = piped("six\ntwo hundred seven\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    assert call(best, "--beam", "1") == (0, "> seis\n> doscientos siete\n> \n", "")


def test_a_line_of_a_slow_pipe_is_translated_before_the_next_is_there(
    call: Call, best: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    class Slow(io.BytesIO):
        parts = iter([b"six\nth", b"ree\n", b""])

        def read1(self, _: int | None = -1) -> bytes:
            printed.append(capsys.readouterr().out)
            return next(self.parts)

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Slow()))
    assert call(best, "--beam", "1").status == 0
    assert printed == ["", "seis\n", "tres\n"]


def no_memory() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("accident", "status", "said"),
    [
        (interrupt, 130, "translate: interrupted after {}"),
        (no_memory, 1, "translate: out of memory after {}; lower --batch_size, now 1, or --longest, now 1000"),
    ],
)
@pytest.mark.parametrize(
    ("good", "printed", "after"),
    [
        (0, "", "0 lines"),
        (2, "\n\nseis\n\n", "0 lines, and 2 further on, where lines without a translation are empty"),
        (3, "tres\n\nseis\n\n", "1 line, and 2 further on, where lines without a translation are empty"),
    ],
)
def test_what_was_translated_is_printed_whatever_happens_then(
    call: Call,
    best: Path,
    lines: Path,
    monkeypatch: pytest.MonkeyPatch,
    accident: Callable[[], None],
    status: int,
    said: str,
    good: int,
    printed: str,
    after: str,
) -> None:
    """Of a batch size of 1, the lines are translated from the shortest to the longest: 4, 3, 1, 2."""
    calls = 0

    def until(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > good:
            accident()
        return translate_texts(*arguments, **settings)

    monkeypatch.setattr("experiments.translate.translate_texts", until)
    assert call(best, lines, "--beam", "1", "--batch_size", "1") == (status, printed, f"error: {said.format(after)}\n")


def test_what_stands_before_a_damaged_line_is_translated(call: Call, best: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"six\nthree\ns\xe9s\nsix\n")
    status, out, err = call(best, tmp_path / "lines.txt", "--beam", "1")
    assert (status, out) == (1, "seis\ntres\n")
    assert err.startswith(f"error: input: line 3 of {tmp_path / 'lines.txt'} is not UTF-8, for it holds the byte 0xe9; convert")


def test_every_line_has_as_many_translations_as_were_asked_for(call: Call, best: Path, lines: Path) -> None:
    status, out, err = call(best, lines, "--beam", "3", "--n_best", "3")
    assert status == 0, err
    found = out.split("\n")[:-1]
    assert [len(set(found[start : start + 3])) for start in range(0, 12, 3)] == [3, 3, 3, 1]
    assert len(found) == 12
    assert (found[0], found[3], found[6], found[9]) == ("tres", "doscientos siete", "seis", "")


def test_a_line_for_which_nothing_is_found_keeps_its_place(call: Call, best: Path, lines: Path) -> None:
    impossible = ["--search.constraints.min_length", "200", "--search.constraints.no_repeat_ngram", "1"]
    status, out, err = call(best, lines, "--search", "mt.beam.BeamSearch", *impossible, "--n_best", "2", "--scores", "true")
    assert status == 0, err
    assert out == "-inf\t-inf\t\n" * 6 + "0.0000\t0.0000\t\n-inf\t-inf\t\n"


def test_a_short_line_does_not_end_a_search_for_long_translations(call: Call, best: Path, lines: Path) -> None:
    status, out, err = call(best, lines, "--search", "mt.search.GreedySearch", "--search.constraints.min_length", "17")
    assert status == 0, err
    assert [len(line.split()) >= 16 for line in out.splitlines()] == [True, True, True, False]


def test_every_translation_begins_with_the_prefix(call: Call, best: Path, lines: Path) -> None:
    status, out, err = call(best, lines, "--prefix", "12 mil")
    assert status == 0, err
    first, second, third, empty = out.splitlines()
    assert all(line.startswith("12 mil") for line in (first, second, third))
    assert empty == ""


SEARCHES: dict[str, Search] = {
    "mt.sampled.SamplingSearch --search.samples 2 --search.sampling.temperature 0.5": SamplingSearch(
        samples=2, sampling=Sampling(temperature=0.5)
    ),
    "mt.beam.BeamSearch --search.threshold 0.5 --search.ranking.offset 5 --search.ranking.coverage 0.2 --alpha 0.6": BeamSearch(
        threshold=0.5, ranking=Ranking(alpha=0.6, offset=5.0, coverage=0.2)
    ),
    "mt.diverse.DiverseBeamSearch --search.width 4 --search.groups 2 --search.constraints.min_length 3"
    " --search.constraints.no_repeat_ngram 2 --search.constraints.ban_unknown true --n_best 3": DiverseBeamSearch(
        width=4, groups=2, n_best=3, constraints=Constraints(min_length=3, no_repeat_ngram=2, ban_unknown=True)
    ),
    "mt.stochastic.StochasticBeamSearch --search.width 3": StochasticBeamSearch(width=3),
    "mt.exhaustive.ExhaustiveSearch --search.constraints.max_length 2": ExhaustiveSearch(constraints=Constraints(max_length=2)),
}


def expected(search: Search, checkpoint: Path, lines: Path) -> list[str]:
    """What is to be printed of all that a search finds."""
    found = Seq2Seq.load_from_checkpoint(checkpoint).translate(lines.read_text().splitlines(), search)
    return [text for row in found for text in (*(best.text for best in row), *[""] * (search.count - len(row)))]


@pytest.mark.parametrize(("words", "search"), SEARCHES.items(), ids=lambda value: type(value).__name__)
def test_every_search_can_be_asked_for(call: Call, best: Path, lines: Path, words: str, search: Search) -> None:
    status, out, err = call(best, lines, "--search", *words.split())
    assert status == 0, err
    assert out.splitlines() == expected(search, best, lines)


def test_a_search_can_come_from_a_file(call: Call, best: Path, lines: Path, tmp_path: Path) -> None:
    settings = {"width": 2, "n_best": 2, "ranking": {"alpha": 0.0}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"class_path": "mt.beam.BeamSearch", "init_args": settings}))
    status, out, err = call(best, lines, "--search", tmp_path / "search.yaml")
    assert status == 0, err
    assert out.splitlines() == expected(BeamSearch(width=2, n_best=2, ranking=Ranking(alpha=0)), best, lines)


def test_a_wrong_search_is_refused_in_a_sentence(call: Call, best: Path, lines: Path) -> None:
    def said(*words: str) -> str:
        status, out, err = call(best, lines, *words)
        assert (status != 0, out, err.count("\n")) == (True, "", 1)
        return err

    beam = ["--search", "mt.beam.BeamSearch"]
    assert "search.widht: mt.beam.BeamSearch has no such setting; did you mean width?" in said(*beam, "--search.widht", "7")
    assert "beam: n_best is at most the width, got n_best=9, width=5" in said(*beam, "--search.n_best", "9")
    assert "there is no Beam in mt.beam; there are BeamSearch" in said("--search", "mt.beam.Beam")
    for flag in ("alpha", "patience"):
        assert f"{flag}=1.0 is of a beam, and GreedySearch is none; give --beam too" in said(
            "--search", "mt.search.GreedySearch", f"--{flag}", "1"
        )


OWN = BeamSearch(width=4, n_best=4, ranking=Ranking(alpha=0.3, offset=5), constraints=Constraints(min_length=3), threshold=0.9)


@pytest.mark.parametrize(
    ("own", "beam", "alpha", "n_best", "chosen"),
    [
        (OWN, None, None, 1, replace(OWN, n_best=1)),
        (OWN, 2, None, 2, replace(OWN, width=2, n_best=2)),
        (OWN, None, 0.0, 4, replace(OWN, ranking=Ranking(alpha=0, offset=5))),
        (OWN, 9, 1.0, 9, replace(OWN, width=9, n_best=9, ranking=Ranking(alpha=1, offset=5))),
        (OWN, 1, None, 1, GreedySearch(constraints=OWN.constraints)),
        (DiverseBeamSearch(width=6, groups=3), 9, None, 2, DiverseBeamSearch(width=9, groups=3, n_best=2)),
        (GreedySearch(constraints=OWN.constraints), 3, None, 1, BeamSearch(width=3, constraints=OWN.constraints)),
        (ExhaustiveSearch(ranking=OWN.ranking), 3, 0.5, 2, BeamSearch(width=3, n_best=2, ranking=Ranking(alpha=0.5, offset=5))),
        (SamplingSearch(samples=3), None, None, 2, SamplingSearch(samples=3)),
    ],
)
def test_a_beam_that_is_given_replaces_no_more_than_was_said(
    own: Search, beam: int | None, alpha: float | None, n_best: int, chosen: Search
) -> None:
    assert chosen_search(own, beam, alpha, None, n_best) == chosen
    patient = replace(chosen, patience=1.5) if isinstance(chosen, BeamSearch) else chosen
    if beam is not None or isinstance(own, BeamSearch):
        assert chosen_search(own, beam, alpha, 1.5, n_best) == patient


def test_the_models_own_ranking_survives_a_beam(call: Call, best: Path, lines: Path, tmp_path: Path) -> None:
    own = saved(Seq2Seq.load_from_checkpoint(best, search=OWN), tmp_path / "own.ckpt")
    scores = [
        call(own, lines, *words, "--scores", "true").out for words in (["--beam", "4"], [], ["--beam", "4", "--alpha", "0.9"])
    ]
    assert scores[0] == scores[1] != scores[2]


def test_unknown_words_are_copied_from_the_line(call: Call, knowing_nothing: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("Zaphod six\n")
    plain, copied = (call(knowing_nothing, tmp_path / "lines.txt", *words) for words in ([], ["--copy_unknown", "true"]))
    assert (plain.status, copied.status) == (0, 0)
    assert set(plain.out.split()) == {"<unk>"}
    assert set(copied.out.split()) <= {"Zaphod", "six"}
    assert len(copied.out.split()) == len(plain.out.split())


@pytest.mark.parametrize("words", [("--copy_unknown", "true"), ("--attention", "terminal")])
def test_what_needs_attention_is_refused_where_there_is_none(
    call: Call, without_attention: Path, lines: Path, words: tuple[str, str]
) -> None:
    assert call(without_attention, lines).status == 0
    status, out, err = call(without_attention, lines, *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "this model has no attention" in err
    assert f"leave {words[0].lstrip('-')} out" in err.replace("--", "")
