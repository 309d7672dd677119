"""Every shipped YAML file against the code, and the list of them."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import LINES, Command
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule, Trainer

from experiments.listing import CONFIGS, description, listing
from lm import SequenceModule

ALL = sorted(CONFIGS.rglob("*.yaml"))
MODELS = [path for path in ALL if "model" in yaml.safe_load(path.read_text())]
VOCABULARIES: dict[str, dict[str, int]] = {
    "lm": {"vocab_size": 100_000},
    "mt": {"source_vocab_size": 20, "target_vocab_size": 30},
    "labels": {"vocab_size": 1000, "label_count": 5},
    "series": {},
}


def named(path: Path) -> str:
    return path.stem


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@pytest.mark.parametrize("path", ALL, ids=named)
def test_a_config_begins_with_its_description_and_its_launch_command(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first == f"# {description(path)}"
    assert 10 < len(description(path)) <= 130
    words = second.removeprefix("#   ").split()
    assert words[:4] == ["python", "-m", "experiments.run", "fit"]
    files = [following for word, following in itertools.pairwise(words) if word == "--config"]
    assert all((CONFIGS.parent.parent / file).is_file() for file in files)
    assert files[-1] == str(path.relative_to(CONFIGS.parent.parent))


def test_every_config_parses() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=int)
    parser.add_class_arguments(Trainer, "trainer", fail_untyped=False, instantiate=False)
    parser.add_subclass_arguments(LightningModule, "model", required=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    for path in ALL:
        config = load(path)
        if "model" in config:
            config["model"]["init_args"] |= VOCABULARIES[path.parent.name]
        assert parser.parse_object(config).as_dict().keys() >= config.keys(), path


@pytest.mark.parametrize("path", MODELS, ids=named)
def test_the_model_of_a_config_can_be_built_and_written_down(path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    model = load(path)["model"]
    model["init_args"] |= VOCABULARIES[path.parent.name]
    parsed = parser.parse_object({"model": model})
    written = parser.dump(parsed, skip_none=False)  # as the config.yaml of a run
    assert parser.dump(parser.parse_string(written), skip_none=False) == written
    with torch.device("meta"):  # sizes are checked, and nothing is drawn
        built = parser.instantiate(parsed).model
    assert isinstance(built, SequenceModule)
    assert built.arguments.items() >= VOCABULARIES[path.parent.name].items()


@pytest.mark.parametrize("path", [path for path in MODELS if path.parent.name == "lm"], ids=named)
def test_the_token_that_ends_a_line_is_in_the_vocabulary(path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    data = parser.instantiate(parser.parse_object({"data": load(path)["data"]})).data
    if data.line_end is not None:
        assert data.recipe.train(["one . two"]).id_of(data.line_end) >= 0


def run_one_step(cli: Command, config: str | Path, folder: Path, *words: str) -> None:
    quick = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--data.cache", folder / "cache"]
    done = cli("fit", "--config", CONFIGS / f"{config}.yaml", *quick, *words, "--run_folder", folder / "run")
    assert done.status == 0, done.err


@pytest.mark.parametrize("path", sorted((CONFIGS / "series").glob("*.yaml")), ids=named)
def test_an_experiment_on_a_series_runs_an_epoch(cli: Command, tmp_path: Path, path: Path) -> None:
    quick = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    done = cli("fit", "--config", path, *quick, "--run_folder", tmp_path)
    assert done.status == 0, done.err
    assert (tmp_path / "forecasts.png").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "lm/human_numbers_1_last_word",
        "lm/human_numbers_6_regularized",
        "lm/numbers_masked",
        "mt/numbers_en_fr",
    ],
)
def test_an_experiment_runs_a_step(cli: Command, tmp_path: Path, name: str) -> None:
    run_one_step(cli, name, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "lm/time_machine_char_rnn_scratch",
        "lm/wikitext2_small",
        "lm/wikitext2_character_cnn",
        "lm/wikitext2_ngram_small",
        "lm/wikitext2_window_small",
    ],
)
def test_an_experiment_on_texts_of_the_web_runs_a_step_on_ones_own(cli: Command, tmp_path: Path, name: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES * 4))
    source = {"init_args": {"train": str(text), "test": None, "validation_fraction": 0.1}}
    part = tmp_path / "source.yaml"
    part.write_text(yaml.safe_dump({"data": {"init_args": {"source": source}}}))
    run_one_step(cli, name, tmp_path, "--config", str(part))


SMALL = {"embedding_size": 16, "projection_size": 16, "experts": 2, "rank": 4}


def smaller(settings: Any) -> Any:
    """The same model, small enough for a text of a dozen words."""
    if isinstance(settings, list):
        return [smaller(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    changed = {name: SMALL.get(name, smaller(value)) for name, value in settings.items()}
    if "cutoffs" in settings:
        changed["cutoffs"] = [4, 6, 8][: len(settings["cutoffs"])]
    if "layer_sizes" in settings:
        *others, last = settings["layer_sizes"]
        changed["layer_sizes"] = [20] * len(others) + [16 if last == settings["embedding_size"] else 18]
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in MODELS if any(word in path.stem for word in ("awd", "mogrifier"))], ids=named)
def test_a_published_model_runs_a_step_small_and_on_another_text(cli: Command, tmp_path: Path, path: Path) -> None:
    config = smaller(load(path))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES * 40) + "\n")
    source = config["data"]["init_args"]["source"]
    if source["class_path"].endswith("ByteSplit"):
        source["init_args"] = {"file": str(text), "train": 30_000, "validation": 4_000}
    else:
        source["class_path"], source["init_args"] = "datamodules.sources.Files", {"train": str(text), "validation": str(text)}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    run_one_step(cli, tmp_path / "small", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lm/quickstart", "lm/article", "lm/ngram"])
def test_an_experiment_on_the_manual_runs_a_step(cli: Command, tmp_path: Path, name: str) -> None:
    run_one_step(cli, name, tmp_path)


def test_the_list_names_every_config_with_its_description() -> None:
    lines = listing().splitlines()
    for path in ALL:
        assert any(path.name in line and line.endswith(description(path)) for line in lines)
    assert max(map(len, lines)) <= 150


def test_alone_the_command_lists_the_experiments_without_importing_torch() -> None:
    program = "import sys, runpy; sys.argv = ['run']; runpy.run_module('experiments.run', run_name='__main__', alter_sys=True)"
    check = "; print('torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program + check], capture_output=True, text=True, check=True, cwd=CONFIGS.parent.parent
    )
    assert done.stdout == f"{listing_from_root()}\nFalse False\n"
    assert "python -m experiments.run fit --config experiments/configs/lm/quickstart.yaml" in done.stdout


def listing_from_root() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CONFIGS.parent.parent)
        return listing()
