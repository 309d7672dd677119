"""A cell, a corpus, a callback, an experiment: each is one new file outside of this project, named in YAML by its class path."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from commands import Command

from experiments.generate import generate
from lm import LanguageModel

CELL = '''
    """A leaky unit: h_t = (1 - a) h_{t-1} + a tanh(W x_t + b)."""

    from torch import Tensor, nn
    from lm.layers import Cell, State

    class LeakyCell(Cell):
        def __init__(self, input_size: int, hidden_size: int, a: float = 0.5) -> None:
            super().__init__(input_size, hidden_size)
            self.a = a
            self.read = nn.Linear(input_size, hidden_size)

        def project(self, x: Tensor) -> Tensor:
            return self.read(x).tanh()

        def step(self, x: Tensor, state: State) -> State:
            return ((1 - self.a) * state[0] + self.a * x,)
'''

CORPUS = '''
    """Counting in Roman numerals."""

    from dataclasses import asdict, dataclass
    from datamodules.sources import Source

    @dataclass(frozen=True)
    class Roman(Source):
        limit: int = 20

        def splits(self):
            lines = ["I " * (number % 5) + "V " * (number // 5) for number in range(1, self.limit + 1)]
            return {"train": lines, "validation": lines[-5:]}

        def describe(self):
            return {"source": "Roman", **asdict(self)}
'''

CALLBACK = '''
    """Says hello at every epoch."""

    from lightning import Callback

    class Hello(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_train_epoch_start(self, trainer, pl_module) -> None:
            print(f"hello {self.name}, this is epoch {trainer.current_epoch}")
'''

EXPERIMENT = """
    # Roman numerals with a leaky unit
    data:
      class_path: datamodules.LanguageData
      init_args:
        source: {class_path: my_corpus.Roman, init_args: {limit: 40}}
        lanes: 2
        steps: 4
    model:
      class_path: lm.LanguageModel
      init_args:
        embedding_size: 4
        layer_sizes: [4, 4]
        cell: {class_path: my_cell.LeakyCell, init_args: {a: 0.25}}
    trainer:
      accelerator: cpu
      max_epochs: 2
      enable_model_summary: false
      enable_progress_bar: false
      callbacks: [{class_path: my_callback.Hello, init_args: {name: reader}}]
"""


@pytest.fixture
def launch(on_path: Path) -> list[str]:
    """The words that launch the experiment, its four files in a folder of their own."""
    for name, text in {"my_cell": CELL, "my_corpus": CORPUS, "my_callback": CALLBACK}.items():
        (on_path / f"{name}.py").write_text(dedent(text))
    (on_path / "my_experiment.yaml").write_text(dedent(EXPERIMENT))
    return ["fit", "--config", str(on_path / "my_experiment.yaml"), "--data.cache", str(on_path / "cache")]


def test_new_parts_train_and_their_checkpoint_loads(
    cli: Command, launch: list[str], on_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = cli(*launch, "--run_folder", on_path / "run")
    assert done.status == 0, done.err
    assert "hello reader, this is epoch 1" in done.out
    checkpoint = on_path / "run" / "checkpoints" / "best.ckpt"
    model = LanguageModel.load_from_checkpoint(checkpoint)
    cell = model.network.layers[0]
    assert type(cell).__module__ == "my_cell"
    assert cell.a == 0.25
    generate(str(checkpoint), ["I I"], length=3)
    assert capsys.readouterr().out.startswith("I I")

    data = on_path / "data.yaml"
    config = yaml.safe_load((on_path / "my_experiment.yaml").read_text())
    data.write_text(yaml.safe_dump({"data": config["data"]}))
    words = ["validate", "--config", data, "--ckpt_path", checkpoint, "--data.cache", on_path / "cache"]
    assert cli(*words, "--run_folder", on_path / "again").status == 0


def test_another_process_loads_a_checkpoint_of_new_parts_once_they_are_trusted(
    cli: Command, launch: list[str], on_path: Path
) -> None:
    assert cli(*launch, "--run_folder", on_path / "run", "--trainer.max_epochs", "1").status == 0
    checkpoint = on_path / "run" / "checkpoints" / "best.ckpt"
    script = dedent(f"""
        import sys
        sys.path.insert(0, {str(on_path)!r})
        from experiments.command import command
        from experiments.generate import generate
        for trust in ([], ["--trust", "my_cell"]):
            sys.argv = ["generate", {str(checkpoint)!r}, "--prompt", "I I", "--length", "2", *trust]
            try:
                command(generate)
            except SystemExit as end:
                print("status", end.code)
    """)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "names my_cell.LeakyCell, which will not be imported unseen" in done.stderr
    status, text = done.stdout.splitlines()
    assert status == "status 1"
    assert text.startswith("I I")
