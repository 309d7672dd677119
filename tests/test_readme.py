"""What README tells people to type works, word for word."""

import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import write_experiment

from experiments import run
from lm import LanguageModel

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code(beginning: str, language: str = "python") -> str:
    """The first block of a language after a text."""
    found = re.search(re.escape(beginning) + rf".*?```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"README no longer says {beginning!r} before a block of {language}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's own, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNROLL_RUN_FOLDER", raising=False)
    return tmp_path


def test_a_cell_a_corpus_a_callback_and_an_experiment_are_one_file_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("minimal", "squares", "patience"):
        (folder / f"{name}.py").write_text(code(f"`{name}.py`"), encoding="utf-8")
    quickstart = (ROOT / "experiments/configs/lm/quickstart.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(quickstart, encoding="utf-8")
    parts = "--data.source squares.Squares --model.cell minimal.MinimalGRUCell --trainer.callbacks+=patience.Announce"
    small = "--model.layer_sizes [16] --trainer.max_epochs 1 --trainer.accelerator cpu --trainer.enable_progress_bar false"
    arguments = f"fit --config mine.yaml {parts} {small} --data.cache {folder} --run_folder mine"
    monkeypatch.setattr(sys, "argv", ["run", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 0
    assert "epoch 0 is over" in capsys.readouterr().out
    assert "times" in LanguageModel.load_from_checkpoint("mine/checkpoints/best.ckpt").generate("2 times", 5)[0]


def test_both_stages_of_awd_lstm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_experiment(folder)
    stage = code("Train as AWD-LSTM does", "yaml")
    (folder / "averaged.yaml").write_text(stage.replace("patience: 5", "patience: 1, monitor: val/accuracy"), encoding="utf-8")
    (folder / "second.yaml").write_text(stage.replace("patience: 5", "finetune: true"), encoding="utf-8")
    found = re.search(r"`(--trainer.callbacks\+=callbacks.StartFrom .*?)`", README, re.DOTALL)
    assert found is not None
    start = shlex.split(found[1].replace("RUN", "first"))

    def fit(run_folder: str, *words: str) -> dict[str, Any]:
        always = ["--config", "experiment.yaml", "--trainer.max_epochs", "4", "--run_folder", run_folder]
        monkeypatch.setattr(sys, "argv", ["run", "fit", *always, *words])
        with pytest.raises(SystemExit) as ended:
            run.main()
        assert ended.value.code == 0
        return dict(torch.load(f"{run_folder}/checkpoints/last.ckpt", weights_only=True))

    first, second = fit("first", "--config", "averaged.yaml"), fit("second", "--config", "second.yaml", *start)
    assert 0 < first["callbacks"]["NTASGD"]["steps"] < first["global_step"]
    assert second["callbacks"]["NTASGD"]["steps"] == second["global_step"]
    assert second["callbacks"]["NTASGD"]["losses"][0] < 2 < math.log(len(second["state_dict"]["head.bias"]))


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_training_and_using_a_model_in_python() -> None:
    exec(code("and training one needs no YAML"), {})
    exec(code("a trained model is three lines").replace("runs/quickstart/.../checkpoints/best.ckpt", "model.ckpt"), {})


@pytest.mark.slow
def test_fine_tuning_takes_the_weights_of_a_first_run_and_rates_by_layer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = write_experiment(folder)
    fine_tune = code("as ULMFiT does", "yaml").replace("FIRST.ckpt", "first/checkpoints/last.ckpt")
    (folder / "fine_tune.yaml").write_text(fine_tune, encoding="utf-8")
    for name, parts in (("first", []), ("second", ["--config", "fine_tune.yaml"])):
        monkeypatch.setattr(sys, "argv", ["run", "fit", "--config", str(experiment), *parts, "--run_folder", name])
        with pytest.raises(SystemExit) as ended:
            run.main()
        assert ended.value.code == 0
    first, second = (torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("first", "second"))
    rates = [group["lr"] for group in second["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([0.004 / 32 / 2.6**2, 0.004 / 32 / 2.6, 0.004 / 32])
    weights = [one["state_dict"]["network.embedding.weight"] for one in (first, second)]
    assert torch.equal(*weights)  # two epochs of three groups
    assert not torch.equal(*(one["state_dict"]["network.layers.0.rnn.weight_ih_l0"] for one in (first, second)))


def test_every_command_of_readme_names_a_config_that_exists() -> None:
    named = re.findall(r"experiments/configs/\S+\.yaml", README)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
