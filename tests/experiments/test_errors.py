"""What is printed for wrong input: one sentence each, without a traceback, that names the thing, the value and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, Finished

from experiments.errors import sentence
from lm import LanguageModel

Variant = Callable[[str, Any], Path]


def said(done: Finished, status: int = 1) -> str:
    """The one sentence that ends a refused command."""
    assert done.status == status, done
    assert "Traceback" not in done.err
    (told,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert done.err.endswith(f"{told}\n")
    return told.removeprefix("error: ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data.lanes", "many", "data.lanes: 'many' is not a whole number"),
        ("data.max_tokens", "many", "data.max_tokens: 'many' is not a whole number or null"),
        ("data.lane", 5, "data.lane: datamodules.LanguageData has no such setting; did you mean lanes?"),
        ("data.source", "datamodules.sources.File", "data.source: there is no File in datamodules.sources; did you mean Files?"),
        ("data.source.colum", "x", "data.source.colum: datamodules.sources.Files has no such setting; did you mean column?"),
        ("model.class_path", "Model", "model: Model names no class; give its module too, such as lm.LanguageModel"),
        ("model.class_path", "no.Model", "model: there is no module no; correct the name, or put its folder on PYTHONPATH"),
        ("model.class_path", "lm.LanguageModle", "model: there is no LanguageModle in lm; did you mean LanguageModel?"),
        ("model.class_path", "lm.Sampling", "model: lm.Sampling is not a LightningModule; name a class that is"),
        ("model.cell", "lm.layers.LSTN", "model.cell: there is no LSTN in lm.layers; did you mean LSTM?"),
        ("model.layer_sizes", ["wide"], "model.layer_sizes: 'wide' is not a whole number"),
        ("model.residual", "maybe", "model.residual: 'maybe' is not true or false"),
        ("model.optimizer.lrr", 1, "model.optimizer.lrr: torch.optim.Adam has no such setting; did you mean lr?"),
        (
            "model.initialisation",
            "xavir",
            "model.initialisation: 'xavir' is not one of"
            " 'default', 'normal', 'uniform', 'uniform_embedding', 'xavier', 'xavier_per_gate', 'orthogonal'",
        ),
        (
            "model.cell",
            {"class_path": "lm.layers.RNN", "init_args": {"nonlinearity": "x"}},
            "model.cell.nonlinearity: 'x' is not one of 'tanh', 'relu'",
        ),
        (
            "trainer.max_epoch",
            3,
            "trainer.max_epoch: there is no such setting;"
            " did you mean trainer.max_epochs or trainer.min_epochs or trainer.max_steps?",
        ),
        (
            "trainer.callbacks",
            [{"class_path": "callbacks.GradientClipping", "init_args": {"nor": 1}}],
            "trainer.callbacks.nor: callbacks.GradientClipping has no such setting; did you mean norm?",
        ),
        (
            "trainer.callbacks",
            [{"class_path": "callbacks.GradientCliping"}],
            "trainer.callbacks: there is no GradientCliping in callbacks; did you mean GradientClipping or GradientFlow?",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_value_and_what_would_be_right(
    cli: Command, variant: Variant, name: str, value: Any, expected: str
) -> None:
    assert said(cli("fit", "--config", variant(name, value)), 2) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.lanes", "many"], "data.lanes: 'many' is not a whole number"),
        (["--model.layer_size", "[3]"], "model.layer_size: lm.LanguageModel has no such setting; did you mean layer_sizes or"),
        (["--traner.max_epochs", "3"], "traner.max_epochs: there is no such setting; did you mean trainer.max_epochs"),
        (
            ["--data.source", "datamodules.builtin.PythonDoc"],
            "data.source: there is no PythonDoc in datamodules.builtin; did you",
        ),
        (["--optimizer", "torch.optim.SGD"], "optimizer: there is no such setting"),
        (["--trainer.max_epochs", "1.5"], "trainer.max_epochs: '1.5' is not a whole number or null"),
    ],
)
def test_a_wrong_flag_is_named_like_a_wrong_setting(cli: Command, experiment: Path, words: list[str], expected: str) -> None:
    assert said(cli("fit", "--config", experiment, *words), 2).startswith(expected)


def test_wrong_config_files_are_named(cli: Command, experiment: Path) -> None:
    assert "there is no file" in (missing := said(cli("fit", "--config", "nothere.yaml"), 2))
    assert "nothere.yaml" in missing
    Path("broken.yaml").write_text("a: [1\nb: }")
    assert said(cli("fit", "--config", "broken.yaml"), 2).startswith("config: a file holds no YAML mapping: while parsing")
    assert said(cli("fit", "--config", experiment.with_name("data.yaml")), 2).startswith("model: not given; add --config FILE")
    assert "say one of fit, validate, test, predict" in said(cli(), 2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data.source.train", "missing.txt", "Files: train is to come from missing.txt, and no such file exists"),
        ("data.lanes", 5000, "stream: 5000 lanes of 8 steps need at least 40008 tokens, and the corpus has 672: use fewer lanes"),
        ("data.steps", 500, "stream: 4 lanes of 500 steps need at least 2500 tokens, and the corpus has 672: use fewer lanes or"),
        ("data.line_end", "<end>", "Tokenizer: '<end>' is not among its 11 tokens: reserve it, or train on it"),
        ("model.output_dropout", 2.0, "LockedDropout: the rate is a probability below 1, got 2.0"),
        ("model.optimizer.lr", -1.0, "Invalid learning rate: -1.0"),
        ("trainer.callbacks", [{"class_path": "callbacks.GradientClipping"}], "GradientClipping: give either norm or value"),
    ],
)
def test_what_a_constructor_refuses_is_said_in_its_words(
    cli: Command, variant: Variant, name: str, value: Any, expected: str
) -> None:
    assert said(cli("fit", "--config", variant(name, value))).startswith(expected)


def test_an_empty_corpus_is_refused(cli: Command, variant: Variant) -> None:
    Path("empty.txt").write_text("")
    told = said(cli("fit", "--config", variant("data.source.train", "empty.txt")))
    assert told.startswith("Files: no texts come out of train (empty.txt)")
    assert "check that it is not empty" in told


def test_checkpoints_that_do_not_fit_are_refused(cli: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint, data = trained / "checkpoints/last.ckpt", trained.parent / "data.yaml"

    def refused(*words: str | Path, ckpt_path: Path = checkpoint, config: Path = data) -> str:
        return said(cli("test", "--config", config, "--ckpt_path", ckpt_path, "--run_folder", tmp_path / "run", *words))

    assert "there is no file" in refused(ckpt_path=tmp_path / "nothere.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(checkpoint.read_bytes()[:1000])
    assert "damaged.ckpt cannot be read" in refused(ckpt_path=tmp_path / "damaged.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for config in (data, trained.parent / "experiment.yaml"):
        assert "was not written by this project's models" in refused(ckpt_path=tmp_path / "other.ckpt", config=config)
    shapes = "checkpoint: its network.layers.0.rnn.weight_ih_l0 is [32, 8] and this model's [64, 8]; give the model the settings"
    assert refused("--model.layer_sizes", "[16]").startswith(shapes)
    assert "it has no network.layers.1.rnn.weight_ih_l0, unlike this model" in refused("--model.layer_sizes", "[8, 8]")
    (tmp_path / "other.txt").write_text((trained.parent / "train.txt").read_text().replace("cat", "lion"))
    assert "vocabulary: the checkpoint's tokenizer has 11 entries" in refused("--data.source.train", tmp_path / "other.txt")


def test_a_checkpoint_of_foreign_code_is_not_imported_unless_trusted(cli: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["module"]["init_args"]["cell"] = {"class_path": "unseen_module.Cell", "init_args": {}}
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    done = cli("test", "--config", trained.parent / "data.yaml", "--ckpt_path", tmp_path / "foreign.ckpt")
    assert "names unseen_module.Cell, which will not be imported unseen" in said(done)


def test_a_resumed_optimizer_has_to_be_of_the_same_class(cli: Command, trained: Path, tmp_path: Path) -> None:
    words = ["--ckpt_path", trained / "checkpoints/last.ckpt", "--run_folder", tmp_path / "run", "--trainer.max_epochs", "3"]
    other = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
    told = said(cli("fit", "--config", trained.parent / "experiment.yaml", *words, *other))
    assert told.startswith("optimizer: the checkpoint holds the state of torch.optim.adam.Adam, which does not fit")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(cli: Command, trained: Path) -> None:
    folder = trained.parent / "diverged"
    words = ["--config", trained.parent / "experiment.yaml", "--run_folder", folder]
    sgd = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr"]
    assert cli("fit", *words, *sgd, "0.1", "--trainer.max_epochs", "1").status == 0
    kept = folder / "checkpoints" / "last.ckpt"
    before = kept.read_bytes()
    told = said(cli("fit", *words, *sgd, ".inf", "--ckpt_path", kept, "--trainer.enable_checkpointing", "true"))
    assert told.startswith("loss: it is nan at step 21; the weights of the last checkpoint are untouched: resume from it with")
    assert kept.read_bytes() == before
    assert all(parameter.isfinite().all() for parameter in LanguageModel.load_from_checkpoint(kept).parameters())


def test_a_failing_expression_is_a_bug_and_keeps_its_traceback() -> None:
    def caught(function: Callable[[], object]) -> str | None:
        with pytest.raises((ValueError, TypeError)) as error:
            function()
        return sentence(error.value)

    def refuse() -> None:
        raise ValueError("thing: its value\nis wrong")

    assert caught(refuse) == "thing: its value is wrong"
    assert caught(lambda: int("one")) is None
    assert caught(lambda: refuse(1)) is None  # type: ignore[call-arg]
