"""What tests of the commands share: a tiny experiment in a folder of its own, and the commands run in this process."""

import io
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from experiments.cli import run
from experiments.command import command

NOUNS, VERBS = ("cat", "dog", "bird", "horse"), ("sees", "hears", "likes")
LINES = [f"the {one} {verb} the {other} ." for one, verb, other in itertools.product(NOUNS, VERBS, NOUNS)]


class Finished(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Finished]
Call = Callable[..., Finished]


def write_experiment(folder: Path) -> Path:
    """A corpus, `experiment.yaml` and `data.yaml`, which is the same without the model."""
    (folder / "train.txt").write_text("\n".join(LINES * 2) + "\n")
    (folder / "held_out.txt").write_text("\n".join(LINES[::3]) + "\n")
    texts = {"train": str(folder / "train.txt"), **{split: str(folder / "held_out.txt") for split in ("validation", "test")}}
    data = {
        "class_path": "datamodules.LanguageData",
        "init_args": {
            "source": {"class_path": "datamodules.sources.Files", "init_args": texts},
            "lanes": 4,
            "steps": 8,
            "cache": str(folder / "cache"),
        },
    }
    trainer = {"accelerator": "cpu", "max_epochs": 2, "enable_model_summary": False, "enable_progress_bar": False}
    arguments = {
        "embedding_size": 8,
        "layer_sizes": [8],
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    }
    model = {"class_path": "lm.LanguageModel", "init_args": arguments}
    (folder / "data.yaml").write_text(yaml.safe_dump({"seed_everything": 1, "data": data, "trainer": trainer}))
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 1, "data": data, "model": model, "trainer": trainer}))
    return path


def piped(text: str) -> io.TextIOWrapper:
    """A standard input with this text in it."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """cli(*words): `python -m experiments.run` in this process."""

    def call(*words: str | Path) -> Finished:
        monkeypatch.setattr("sys.argv", ["run", *map(str, words)])
        capsys.readouterr()
        status = run()
        return Finished(status, *capsys.readouterr())

    return call


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """call(function, words, ...): a command in this process; its status, standard output and error."""

    def run(
        function: Callable[..., None], *words: str | Path, optional: str | None = None, others: str | None = None
    ) -> Finished:
        monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            command(function, optional=optional, others=others)
        except SystemExit as end:
            status = int(end.code or 0)
        return Finished(status, *capsys.readouterr())

    return run


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a tiny experiment, in the folder that is now the current one."""
    monkeypatch.chdir(tmp_path)
    return write_experiment(tmp_path)


@pytest.fixture
def variant(experiment: Path) -> Callable[[str, Any], Path]:
    """variant(name, value): the experiment with one setting changed, its name with dots and without `init_args`."""

    def change(name: str, value: Any) -> Path:
        config = yaml.safe_load(experiment.read_text())
        place = config
        *sections, last = name.split(".")
        for section in sections:
            place = place[section]
            place = place.setdefault("init_args", {}) if "class_path" in place and last != "class_path" else place
        place[last] = value
        path = experiment.with_name("variant.yaml")
        path.write_text(yaml.safe_dump(config))
        return path

    return change


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; its experiment lies beside it."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_experiment(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run", "fit", "--config", str(config), "--run_folder", str(folder / "run")])
        assert run() == 0
    return folder / "run"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules can be imported; nothing remembers them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
