"""Checkpoints that stand alone: from a model built in Python to the same model in a process that knows only the file."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from datamodules.language import LanguageData
from datamodules.recipes import Words
from datamodules.streams import CompleteStream, SequentialStream
from lm.base import SequenceModule
from lm.cells import ElmanCell, GRUCell, LSTMCell, Zoneout
from lm.checkpoint_file import read_checkpoint
from lm.heads import LinearHead
from lm.layers import GRU, LSTM, RecurrentLayer
from lm.module import LanguageModel
from lm.sampling import Sampling
from lm.schedule import Schedule

LINES = ["a b c d e f g", "b c", "", "g f e d c b a"] * 3
MakeTrainer = Callable[..., Trainer]
MakeData = Callable[..., LanguageData]

pytestmark = pytest.mark.usefixtures("seed")


def gru_layer(input_size: int, hidden_size: int) -> RecurrentLayer:
    """A function will do where a layer is made."""
    return GRU(input_size, hidden_size)


class Bolder(LanguageModel):
    """A model with an argument of its own, and nothing done about it."""

    def __init__(self, boldness: float, cells: tuple[type[RecurrentLayer], ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.boldness = boldness
        self.cells = cells
        self.extra = nn.Linear(2, 2)


class Boldest(Bolder):
    """Two constructors away."""

    def __init__(self, vocab_size: int, *, title: str = "bold") -> None:
        super().__init__(2.0, vocab_size=vocab_size, embedding_size=3, layer_sizes=[4])
        self.title = title


class Forwarding(LanguageModel):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Foreign(LightningModule):
    """A module of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_index: int) -> Tensor:  # noqa: ARG002
        return self.weight.square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data_and_trainer(make_data: MakeData, make_trainer: MakeTrainer) -> tuple[LanguageData, Trainer]:
    return make_data(LINES, lanes=2, steps=4), make_trainer(max_steps=2)


def outputs(model: LanguageModel) -> Tensor:
    tokens = torch.arange(12).view(2, 6) % model.vocab_size
    with torch.no_grad():
        return model.head.log_prob(model.eval()(tokens).hidden)


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "class": {"cell": LSTMCell},
    "function": {"cell": gru_layer},
    "partial": {"cell": partial(ElmanCell, activation="relu", layer_norm=True), "head": partial(LinearHead, bias=False)},
    "nested": {"cell": partial(Zoneout, cell=partial(GRUCell, layer_norm=True), hidden=0.2)},
    "one-hot": {"embedding_size": None, "residual": True, "loss_at": "last", "initialisation": "orthogonal"},
    "schedule": {
        "optimizer": partial(torch.optim.SGD, lr=0.5, momentum=0.9),
        "schedule": Schedule(partial(OneCycleLR, max_lr=0.5), total_steps_as="total_steps"),
    },
    "plain schedule": {"optimizer": torch.optim.Adam, "schedule": Schedule(partial(StepLR, step_size=1), interval="epoch")},
    "lambda": {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.5)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_built_in_python_comes_back_from_its_file_and_can_be_saved_again(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path, name: str
) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    model = LanguageModel(data.vocab_size, **{"embedding_size": 6, "layer_sizes": [8, 6], **SETTINGS[name]})
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    torch.load(tmp_path / "first.ckpt", weights_only=True)

    loaded = LanguageModel.load_from_checkpoint(tmp_path / "first.ckpt")
    assert loaded.training  # fitted again, it drops units again
    assert torch.equal(outputs(loaded), outputs(model))
    assert loaded.text_tokenizer().to_json() == data.tokenizer.to_json()
    assert loaded.arguments == model.arguments
    assert loaded.generate("a b", 5, Sampling(seed=1)) == model.generate("a b", 5, Sampling(seed=1))

    trainer = make_trainer(max_steps=1)
    trainer.fit(loaded, data)
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    assert torch.equal(outputs(LanguageModel.load_from_checkpoint(tmp_path / "second.ckpt")), outputs(loaded))
    assert read_checkpoint(tmp_path / "second.ckpt")["module"] == read_checkpoint(tmp_path / "first.ckpt")["module"]


def test_a_run_resumes_as_if_it_had_not_stopped(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Without dropout and without a carried state, which are restored elsewhere."""

    def run(callbacks: list[Callback], ckpt_path: Path | None = None) -> LanguageModel:
        torch.manual_seed(1)
        schedule = Schedule(partial(OneCycleLR, max_lr=0.1), total_steps_as="total_steps")
        data = make_data(LINES, lanes=2, steps=4)
        assert len(data.train_dataloader()) == 7  # so that 13 steps are of two epochs
        optimizer = partial(torch.optim.Adam, lr=0.1)
        model = LanguageModel(data.vocab_size, 6, [8], carry=False, optimizer=optimizer, schedule=schedule)
        trainer = make_trainer(max_steps=13, callbacks=callbacks, enable_checkpointing=bool(callbacks))
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return model

    whole = run([ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)])
    for step in (3, 7, 10):
        resumed = run([], tmp_path / f"step={step}.ckpt")
        for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_file_is_enough_for_another_process(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """One that has not imported the module of the cells."""
    data, trainer = data_and_trainer(make_data, make_trainer)
    model = LanguageModel(data.vocab_size, 6, [8], partial(Zoneout, cell=LSTMCell))
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    code = """
import sys
from lm import LanguageModel
assert "lm.cells" not in sys.modules
print(LanguageModel.load_from_checkpoint(sys.argv[1]).generate("a b", 5))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.ckpt")]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == str(model.generate(["a b"], 5))


def test_what_cannot_be_named_is_refused_when_the_model_is_made() -> None:
    with pytest.raises(ValueError, match=r"LanguageModel\.cell: a checkpoint cannot name <function"):
        LanguageModel(5, cell=lambda size, hidden: LSTM(size, hidden))
    with pytest.raises(ValueError, match=r"LanguageModel\.cell\.cell: a checkpoint cannot name"):
        LanguageModel(5, cell=partial(Zoneout, cell=lambda size, hidden: LSTMCell(size, hidden)))


def test_a_lambda_as_optimizer_is_forgotten_and_nothing_else(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    model = LanguageModel(data.vocab_size, 6, [8], optimizer=lambda parameters: torch.optim.SGD(parameters, lr=7.0))
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt")
    for one, kind in ((model, torch.optim.SGD), (loaded, torch.optim.Adam)):
        assert one.make_optimizer is not None
        assert isinstance(one.make_optimizer(one.parameters()), kind)
    assert torch.equal(outputs(loaded), outputs(model))


@pytest.mark.parametrize(
    "make",
    [
        lambda size: Bolder(0.5, (LSTMCell, GRUCell), vocab_size=size, embedding_size=3, layer_sizes=[4]),
        lambda size: Bolder(boldness=0.5, vocab_size=size, cell=partial(LSTMCell, layer_norm=True)),
        lambda size: Boldest(size, title="bolder"),
        lambda size: Forwarding(vocab_size=size, embedding_size=3, layer_sizes=[4]),
    ],
)
def test_a_subclass_with_arguments_of_its_own_needs_to_do_nothing(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path, make: Callable[[int], LanguageModel]
) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    model = make(data.vocab_size)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    for asked in (type(model), LanguageModel, SequenceModule):
        loaded = asked.load_from_checkpoint(tmp_path / "model.ckpt")
        assert type(loaded) is type(model)
        assert isinstance(loaded, LanguageModel)
        assert torch.equal(outputs(loaded), outputs(model))
        for name in ("boldness", "title"):
            assert getattr(loaded, name, None) == getattr(model, name, None)
        assert list(getattr(loaded, "cells", [])) == list(getattr(model, "cells", []))


def test_arguments_without_a_name_are_refused_when_the_model_is_made() -> None:
    with pytest.raises(ValueError, match=r"Forwarding: a checkpoint keeps arguments by name, and \*args has none"):
        Forwarding(5, 3)


def test_arguments_can_be_changed_when_loading(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    trainer.fit(LanguageModel(data.vocab_size, 6, [8]), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", carry=False, output_dropout=0.5)
    assert not loaded.carry
    assert loaded.arguments["output_dropout"] == 0.5


def test_a_model_trained_on_tensors_alone_has_a_checkpoint_too(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    model = LanguageModel(5, 3, [4])
    trainer = make_trainer(max_steps=2)
    trainer.fit(model, SequentialStream((torch.arange(100) % 5).numpy(), 2, 4))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.tokenizer is None
    assert torch.equal(outputs(loaded), outputs(model))


def test_a_stranger_named_in_a_file_is_not_imported(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    trainer.fit(LanguageModel(data.vocab_size, 6, [8]), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    trace = tmp_path / "was_imported"
    (tmp_path / "an_attack.py").write_text(
        f"open({str(trace)!r}, 'w')\nfrom lm import LanguageModel\nfrom lm.layers import LSTM\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    model, cell = checkpoint["module"], {"class_path": "an_attack.LSTM", "init_args": {}}
    for changed in (
        model | {"class_path": "an_attack.LanguageModel"},
        model | {"init_args": model["init_args"] | {"cell": cell}},
    ):
        torch.save(checkpoint | {"module": changed}, tmp_path / "changed.ckpt")
        with pytest.raises(
            ValueError, match=r"names an_attack\.\w+, which will not be imported unseen; .* import an_attack first"
        ):
            LanguageModel.load_from_checkpoint(tmp_path / "changed.ckpt")
    assert not trace.exists()


def refused(path: Path, kind: type[Exception], asked: type[SequenceModule] = LanguageModel) -> str:
    """The message, which has to be one sentence that names the file."""
    with pytest.raises(kind) as raised:
        asked.load_from_checkpoint(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    assert message.startswith("checkpoint: ")
    return message


def test_files_that_are_no_checkpoint_of_ours_say_so(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "missing.ckpt", FileNotFoundError)
    assert "there is no file" in refused(tmp_path, FileNotFoundError)

    data, trainer = data_and_trainer(make_data, make_trainer)
    trainer.fit(LanguageModel(data.vocab_size, 6, [8]), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    for name, contents in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint"}.items():
        (tmp_path / name).write_bytes(contents)
        assert "it is damaged, or no checkpoint" in refused(tmp_path / name, ValueError)

    for index, thing in enumerate([{"weights": torch.zeros(2)}, [1, 2], torch.zeros(2), {"module": {"layer": torch.zeros(2)}}]):
        torch.save(thing, tmp_path / f"thing{index}")
        assert "was not written by this project's models" in refused(tmp_path / f"thing{index}", ValueError)

    trainer = make_trainer(max_steps=1)
    trainer.fit(Foreign(), [0])
    trainer.save_checkpoint(tmp_path / "foreign.ckpt")
    assert "was not written by this project's models" in refused(tmp_path / "foreign.ckpt", ValueError)
    assert "holds a lm.module.LanguageModel, not a Bolder" in refused(tmp_path / "model.ckpt", ValueError, Bolder)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_something_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"module": {}, "tokenizers": {}, "state_dict": {}, "attack": Touch(trace)}, tmp_path / "attack.ckpt")
    assert "cannot be read (UnpicklingError)" in refused(tmp_path / "attack.ckpt", ValueError)
    assert not trace.exists()


def test_another_vocabulary_is_refused_in_one_sentence(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    trainer.fit(LanguageModel(data.vocab_size, 6, [8]), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other = make_data(["x y z"] * 9, ["x y"], lanes=2, steps=4)
    message = (
        f"^vocabulary: the checkpoint's tokenizer has {data.vocab_size} entries, this data's another {other.vocab_size}; [^\n]*$"
    )
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt")
    for evaluate in (make_trainer().validate, make_trainer(max_steps=1).fit):
        with pytest.raises(ValueError, match=message):
            evaluate(loaded, datamodule=other)
    with pytest.raises(ValueError, match=message):
        make_trainer(max_steps=4).fit(LanguageModel(other.vocab_size, 6, [8]), other, ckpt_path=tmp_path / "model.ckpt")


def test_a_loaded_model_evaluates_as_the_one_that_was_saved(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    data, trainer = data_and_trainer(make_data, make_trainer)
    model = LanguageModel(data.vocab_size, 6, [8])
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    text = CompleteStream(data.tokens("train"), 1, 5)
    before = make_trainer().test(model, text, verbose=False)
    assert make_trainer().test(LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt"), text, verbose=False) == before


def test_words_of_the_data_come_with_the_file(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = make_data(["Wörter — naïve 你好 <unk>"] * 9, lanes=1, steps=3, tokenizer=Words(normalization="lowercase"))
    trainer = make_trainer(max_steps=1)
    trainer.fit(LanguageModel(data.vocab_size, 6, [8]), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    tokenizer = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt").text_tokenizer()
    assert tokenizer.encode("WÖRTER 你好") == data.tokenizer.encode("wörter 你好")
