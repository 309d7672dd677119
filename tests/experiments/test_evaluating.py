"""After training, on the command line: a cache, dynamic evaluation, ensembles, and averages of checkpoints."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Call, Command, Finished

from experiments.average import average
from lm import LanguageModel

Evaluate = Callable[..., Finished]
CACHE = ["--model.evaluation", "lm.neural_cache.NeuralCache", "--model.evaluation.window", "20"]
DYNAMIC = ["lm.dynamic_evaluation.DynamicEvaluation", "--data.steps", "10", "--data.evaluation_lanes", "1"]
OF_BASE = ["--model.evaluation.base.rule.lanes", "4", "--model.evaluation.base.learning_rate", "0.003"]
PLAIN = ["--model.evaluation.rule", "lm.update_rule.GradientDescent"]


@pytest.fixture
def evaluate(cli: Command, trained: Path, tmp_path: Path) -> Evaluate:
    """evaluate(subcommand, *flags): of the best checkpoint, whose model nothing else describes."""
    words = ["--config", trained.parent / "data.yaml", "--ckpt_path", trained / "checkpoints" / "best.ckpt"]
    return lambda subcommand, *flags: cli(subcommand, *words, "--run_folder", tmp_path / "run", *flags)


def last_row(folder: Path) -> dict[str, str]:
    with (folder / "run" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))[-1]


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_a_cache_is_a_matter_of_flags(evaluate: Evaluate, tmp_path: Path, subcommand: str) -> None:
    name = {"validate": "val", "test": "test"}[subcommand]
    found = {}
    for weight in ("0", "0.8"):
        done = evaluate(subcommand, *CACHE, "--model.evaluation.weight", weight, "--model.evaluation.theta", "2")
        assert done.status == 0, done.err
        found[weight] = float(last_row(tmp_path)[f"{name}/ppl"])
        assert f"{name}/ppl" in done.out
    assert evaluate(subcommand).status == 0
    assert found["0"] == pytest.approx(float(last_row(tmp_path)[f"{name}/ppl"]), rel=1e-6)
    assert found["0.8"] != pytest.approx(found["0"], rel=0.01)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.evaluation", *DYNAMIC, "--model.evaluation.learning_rate", "0.003"],
        ["--model.evaluation", *DYNAMIC, *PLAIN, "--model.evaluation.learning_rate", "0.5"],
        [*CACHE, "--model.evaluation.weight", "0.01", "--model.evaluation.base", *DYNAMIC, *OF_BASE],
    ],
    ids=["RMS", "plain", "cache"],
)
def test_dynamic_evaluation_is_too(evaluate: Evaluate, tmp_path: Path, flags: list[str]) -> None:
    assert evaluate("test", "--data.evaluation_lanes", "1").status == 0
    static = float(last_row(tmp_path)["test/ppl"])
    done = evaluate("test", *flags)
    assert done.status == 0, done.err
    assert float(last_row(tmp_path)["test/ppl"]) < 0.97 * static  # 16 lines of two patterns: there is something to learn


def test_several_checkpoints_are_one_model(evaluate: Evaluate, trained: Path, tmp_path: Path) -> None:
    other = trained / "checkpoints" / "previous.ckpt"
    flags = ["--model.evaluation", "lm.ensemble.Ensemble", "--model.evaluation.checkpoints", f"[{other}]"]
    done = evaluate("test", *flags)
    assert done.status == 0, done.err
    assert float(last_row(tmp_path)["test/ppl"]) > 1


def test_what_cannot_be_is_said_in_one_sentence(evaluate: Evaluate) -> None:
    assert evaluate("test", *CACHE, "--model.evaluation.window", "3000") == (
        1,
        "",
        "error: NeuralCache: the window of 3000 positions is longer than the text of a lane, which has 28: set"
        " model.evaluation.window to less, or data.evaluation_lanes to fewer\n",
    )
    status, _, err = evaluate("test", "--model.evaluation", "lm.dynamic_evaluation.DynamicEvaluation")
    assert (status, err.count("\n")) == (1, 1)
    assert err.endswith("this one is cut into 4 lanes: set data.evaluation_lanes 1\n")
    status, _, err = evaluate("test", *CACHE, "--model.evaluation.thetta", "1")
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith("NeuralCache has no such setting; did you mean theta?\n")


def test_checkpoints_are_averaged(call: Call, trained: Path, tmp_path: Path) -> None:
    paths = [trained / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt")]
    done = call(average, paths[0], "--others", paths[1], "--to", tmp_path / "new" / "mean.ckpt")
    assert done == (0, f"average of 2 checkpoints: {tmp_path / 'new' / 'mean.ckpt'}\n", "")
    one, other, mean = (
        LanguageModel.load_from_checkpoint(path).state_dict() for path in (*paths, tmp_path / "new" / "mean.ckpt")
    )
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)


def test_an_average_of_one_or_of_two_models_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    best = trained / "checkpoints" / "best.ckpt"
    assert call(average, best, "--to", tmp_path / "mean.ckpt").err == (
        f"error: average: {best} alone is its own average; give others with --others\n"
    )
    assert "there is no file nothere.ckpt" in call(average, best, "--others", "nothere.ckpt").err
    larger = torch.load(best, weights_only=True)
    larger["state_dict"]["head.bias"] = torch.zeros(99)
    torch.save(larger, tmp_path / "larger.ckpt")
    status, _, err = call(average, best, "--others", tmp_path / "larger.ckpt", "--to", tmp_path / "mean.ckpt")
    assert (status, err.count("\n")) == (1, 1)
    assert "larger.ckpt has other weights or another vocabulary than" in err
    assert not (tmp_path / "mean.ckpt").exists()
