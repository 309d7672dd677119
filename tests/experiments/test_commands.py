"""generate, score and show: what a person reads of a trained model and of its data."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Call, piped

from experiments.generate import generate
from experiments.score import score
from experiments.show import show
from lm import LanguageModel, Sampling
from mt import Seq2Seq


@pytest.fixture
def checkpoint(trained: Path) -> Path:
    return trained / "checkpoints" / "best.ckpt"


def test_generate_continues_every_prompt_as_often_as_asked(call: Call, checkpoint: Path) -> None:
    words = ["--prompt", "the cat", "--prompt=the dog", "--samples", "2", "--length", "5"]
    status, out, _ = call(generate, checkpoint, *words)
    lines = out.splitlines()
    assert status == 0
    assert [line[:7] for line in lines] == ["the cat", "the cat", "the dog", "the dog"]
    assert max(len(line.split()) for line in lines) <= 2 + 5


def test_generate_is_decided_by_its_seed(call: Call, checkpoint: Path) -> None:
    texts = [call(generate, checkpoint, "--samples", "4", "--seed", seed)[1] for seed in "112"]
    assert texts[0] == texts[1] != texts[2]


def test_generate_reads_a_prompt_as_text_whatever_it_looks_like(call: Call, checkpoint: Path) -> None:
    prompts = ["12", "null", "the: cat", "[the", "true"]
    status, out, err = call(generate, checkpoint, *(f"--prompt={prompt}" for prompt in prompts), "--length", "1")
    assert status == 0, err
    assert len(out.splitlines()) == len(prompts)


def test_generate_refuses_in_one_sentence(call: Call, checkpoint: Path) -> None:
    assert call(generate, checkpoint, "--length", "x") == (2, "", "error: length: 'x' is not a whole number\n")
    assert call(generate, checkpoint, "--langth", "3") == (
        2,
        "",
        "error: langth: there is no such setting; did you mean length?\n",
    )
    assert call(generate) == (2, "", "error: checkpoint: not given; --help tells more\n")
    status, _, err = call(generate, "nothere.ckpt")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: checkpoint: there is no file nothere.ckpt")
    status, _, err = call(generate, checkpoint, "--temperature", "-1")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: sampling: ")
    assert "-1" in err


def test_score_ranks_lines_by_the_probability_that_the_model_gives_them(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    likely, unlikely = "the cat sees the dog .", "dog dog . . the the"
    file = tmp_path / "lines.txt"
    file.write_text(f"{unlikely}\n\n{likely}\n")
    status, out, _ = call(score, checkpoint, file, optional="file")
    assert status == 0
    found = {score.tokens[0]: score for score in LanguageModel.load_from_checkpoint(checkpoint).score([unlikely, likely])}
    ranked = re.findall(r"^ +(\d+)\. +(-[\d.]+)  (.*)$", out, re.MULTILINE)
    assert [(place, line) for place, _, line in ranked] == [("1", likely), ("2", unlikely)]
    assert float(ranked[0][1]) == pytest.approx(found["the"].log_prob, abs=0.01)
    first_bits = float(found["dog"].nll[0]) / math.log(2)
    assert f"dog {first_bits:.1f}  dog" in out
    assert "2 lines, 14 tokens" in out


def test_score_reads_standard_input(call: Call, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", piped("the cat\nthe [bold]dog\n"))
    status, out, _ = call(score, checkpoint, "--tokens", "false", optional="file")
    assert status == 0
    assert out.count("the [bold]dog") == 2
    assert "<eos>" not in out


def test_score_refuses_in_one_sentence(call: Call, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", piped("\n"))
    assert call(score, checkpoint, optional="file")[2] == "error: score: standard input holds no line to score\n"
    assert "there is no file nothere.txt" in call(score, checkpoint, "nothere.txt", optional="file")[2]


@pytest.fixture
def bilingual(translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A translation model; the current folder has texts and references."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source.txt").write_text("two hundred seven\nthree\n\nninety\u2028one\n")
    (tmp_path / "right.txt").write_text("\ufeffdoscientos siete\ntres\n\nnoventa y uno\n")
    (tmp_path / "short.txt").write_text("doscientos siete\n")
    return translator / "checkpoints" / "best.ckpt"


def test_score_of_a_reference_is_its_probability_given_the_line(call: Call, bilingual: Path) -> None:
    status, out, err = call(score, bilingual, "source.txt", "--references", "right.txt", optional="file")
    assert status == 0, err
    texts = ["two hundred seven", "three", "", "ninety\u2028one"], ["doscientos siete", "tres", "", "noventa y uno"]
    model = Seq2Seq.load_from_checkpoint(bilingual)
    expected = model.score(*texts)
    assert (
        f"{expected[0].log_prob:10.2f}  perplexity {expected[0].perplexity:10.2f}  two hundred seven -> doscientos siete" in out
    )
    bits = [value / math.log(2) for value in expected[1].nll.tolist()]
    assert f"tres {bits[0]:.1f}  <eos> {bits[1]:.1f}" in out
    total, count = sum(found.log_prob for found in expected), sum(len(found.tokens) for found in expected)
    assert f"4 pairs, {count} tokens: log-probability {total:.2f}, perplexity {math.exp(-total / count):.2f}" in out
    ranked = re.findall(r"^ +\d+\. +-[\d.]+  (.*) -> (.*)$", out, re.MULTILINE)
    order = sorted(zip(expected, *texts, strict=True), key=lambda row: -row[0].log_prob)
    assert ranked == [(source, target) for _, source, target in order]


def test_score_of_references_reads_standard_input(call: Call, bilingual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", piped("two hundred seven\n"))
    words = ["--references", "short.txt", "--tokens", "false"]
    status, out, err = call(score, bilingual, *words, optional="file")
    assert status == 0, err
    assert out.count("two hundred seven -> doscientos siete") == 2
    assert "<eos>" not in out


def test_score_of_references_refuses_in_one_sentence(call: Call, bilingual: Path, checkpoint: Path) -> None:
    def said(*words: str | Path) -> str:
        status, out, err = call(score, *words, optional="file")
        assert (status, out, err.count("\n")) == (1, "", 1)
        return err

    unequal = "score: source.txt has 4 lines and short.txt has 1: line n of one has to translate line n of the other"
    assert unequal in said(bilingual, "source.txt", "--references", "short.txt")
    assert "holds a translation model, which scores translations: give a file of them" in said(bilingual, "source.txt")
    assert "leave out --references right.txt" in said(checkpoint, "source.txt", "--references", "right.txt")
    assert "there is no file nothere.txt" in said(bilingual, "source.txt", "--references", "nothere.txt")
    assert "there is no file nothere.txt" in said(bilingual, "nothere.txt", "--references", "right.txt")
    Path("empty.txt").write_text("")
    assert "empty.txt holds no line to score" in said(bilingual, "empty.txt", "--references", "empty.txt")


def test_show_prints_sizes_vocabulary_unknown_rate_and_windows(call: Call, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "unknown.txt").write_text("the cat sees the lion .\n")
    config = tmp_path / "data.yaml"
    text = (trained.parent / "data.yaml").read_text().replace(str(trained.parent / "held_out.txt"), str(tmp_path / "unknown.txt"))
    config.write_text(text)
    status, out, err = call(show, config, "--lanes", "1", "--windows", "2")
    assert status == 0, err
    assert "vocabulary of 11" in out
    assert "vocabulary: '<unk>', '<eos>', 'the'" in out
    assert re.search(r"train +│ 672 +│ 0 \(0.00%\)", out)
    assert re.search(r"validation +│ 7 +│ 1 \(14.29%\)", out)
    windows = re.findall(r"lane 0: '(.*)' -> '(.*)'", out)
    assert windows[1][0].split()[0] == windows[0][1]
    assert "4 lanes of 8 steps; each continues the one before" in out


def test_show_prints_pairs_as_they_are_read(call: Call, translator: Path) -> None:
    status, out, err = call(show, translator.parent / "experiment.yaml", "--lanes", "2", "--windows", "1")
    assert status == 0, err
    assert "pairs: train 270 of 270; validation 15 of 15; test 15 of 15" in out
    assert re.search(r"source: vocabulary of \d+", out)
    assert re.search(r"17 batches an epoch of 16 sentences, by length", out)
    assert len(re.findall(r"  source \d: '.*<eos>( <pad>)*'", out)) == 2
    assert len(re.findall(r"  target \d: '<bos> .*<eos>( <pad>)*'", out)) == 2


def test_show_refuses_in_one_sentence(call: Call, tmp_path: Path) -> None:
    assert "there is no file nothere.yaml" in call(show, "nothere.yaml")[2]
    (tmp_path / "empty.yaml").write_text("model: {}\n")
    assert "has no section `data`" in call(show, tmp_path / "empty.yaml")[2]


def test_three_lines_load_continue_and_score(checkpoint: Path) -> None:
    model = LanguageModel.load_from_checkpoint(checkpoint)
    text = model.generate("the cat", length=5, sampling=Sampling(seed=1))[0]
    found = model.score([text])[0]
    assert text.startswith("the cat")
    assert found.log_prob == pytest.approx(-len(found.tokens) * math.log(found.perplexity), rel=1e-5)


def test_the_commands_run_as_modules_and_end_with_their_reader(checkpoint: Path) -> None:
    root = Path(__file__).parent.parent.parent
    script = (
        f'"{sys.executable}" -m experiments.generate "{checkpoint}" --prompt "the cat" --samples 5000 --length 2 | head -n 2'
        f' | "{sys.executable}" -m experiments.score "{checkpoint}"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 lines" in done.stdout
    assert done.stdout.count("the cat") == 2 * 2
