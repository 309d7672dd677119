"""n-grams by the commands: counted, written, weighed, read under another smoothing, and asked as a Markov chain."""

from pathlib import Path

import pytest
import yaml
from commands import LINES, Call, Command

from experiments.generate import generate
from experiments.markov import after, before, between
from experiments.score import score


@pytest.fixture
def config(experiment: Path) -> Path:
    """The tiny experiment with a bigram model."""
    settings = yaml.safe_load(experiment.read_text())
    settings["data"]["init_args"] |= {"lanes": 1, "steps": 1000, "stream": "datamodules.streams.CompleteStream"}
    smoothing = {"class_path": "lm.smoothing.Laplace", "init_args": {"epsilons": [1.0, 0.5]}}
    settings["model"] = {"class_path": "lm.ngram.NGramModel", "init_args": {"order": 2, "smoothing": smoothing}}
    experiment.write_text(yaml.safe_dump(settings))
    return experiment


def test_a_bigram_model_from_counting_to_questions(cli: Command, call: Call, config: Path) -> None:
    done = cli("fit", "--config", config, "--run_folder", "run")
    assert done.status == 0, done.err
    assert "no optimizer" not in done.err
    checkpoint = "run/checkpoints/best.ckpt"
    assert Path("run/learning_curve.png").exists()

    assert call(generate, checkpoint, "--prompt", "the", "--temperature", "0").out.startswith("the ")
    lines = Path("lines.txt")
    lines.write_text(f"{LINES[1]}\ndog the . sees the cat\n")
    scored = call(score, checkpoint, str(lines), optional="file").out.splitlines()
    assert next(line for line in scored if line.lstrip().startswith("1.")).endswith(LINES[1])

    tested = cli("test", "--config", config, "--ckpt_path", checkpoint, "--model.smoothing", "lm.smoothing.KneserNey")
    assert tested.status == 0, tested.err
    predicted = cli("predict", "--config", config, "--ckpt_path", checkpoint, "--run_folder", "predicted")
    assert predicted.status == 0, predicted.err
    assert Path("predicted/predictions.tsv").read_text().startswith("target\tpredicted\n")

    assert "│ .    │ 0.4963      │" in call(after, checkpoint, "cat", "--top", "1").out
    assert "the" in call(before, checkpoint, "cat", "--top", "1").out
    assert call(between, checkpoint, "the", ".", "--length", "5").out.startswith("the ")
    assert call(after, checkpoint, "zebra").err.startswith("error: markov: 'zebra' is no token of the vocabulary of ")
    assert call(after, checkpoint, "cat", "--top", "0").err == "error: markov: top is a count of words from 1, got 0\n"


def test_an_order_above_the_length_of_the_corpus_is_one_sentence(cli: Command, config: Path) -> None:
    smoothing = ["--model.smoothing", "lm.smoothing.KneserNey"]
    done = cli("fit", "--config", config, "--run_folder", "run", "--model.order", "5000", *smoothing)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("error: order: there is no n-gram of 5000 tokens in a training text of ")
    done = cli("fit", "--config", config, "--run_folder", "run", "--model.order", "3")
    assert "Laplace: [1.0, 0.5] cannot be the settings of 3 orders; give a number for each order" in done.err
