"""Arguments as plain data and back; what a checkpoint may name, and what it may not."""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lm.cells import GRUCell, LSTMCell, Zoneout
from lm.heads import LinearHead
from lm.layers import LSTM, RecurrentLayer
from lm.rebuild import describe, rebuild, trusted
from lm.schedule import Schedule


@dataclass
class Settings:
    """A dataclass of a module that is neither ours nor torch's, and is imported."""

    size: int
    cell: Callable[[int, int], RecurrentLayer] = LSTM


def small_lstm(input_size: int, hidden_size: int) -> RecurrentLayer:
    return LSTM(input_size, hidden_size)


def same(one: Any, other: Any) -> bool:
    """Equality that sees into partials."""
    if isinstance(one, functools.partial) and isinstance(other, functools.partial):
        return one.func is other.func and one.args == other.args and same(one.keywords, other.keywords)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Schedule):
        return isinstance(other, Schedule) and same(vars(one), vars(other))
    return bool(one == other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.5,
        "text",
        [1, [2.0, None]],
        {"a": 1, "b": {"c": [False]}},
        LSTM,
        torch.optim.SGD,
        small_lstm,
        functools.partial(torch.optim.SGD, lr=1.0),
        functools.partial(LSTMCell, layer_norm=True),
        functools.partial(Zoneout, cell=functools.partial(GRUCell, layer_norm=True), hidden=0.1),
        Settings(3, GRUCell),
        Schedule(functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2), interval="epoch"),
        [functools.partial(LinearHead, bias=False), {"in": LSTMCell}],
    ],
)
def test_what_is_described_is_rebuilt_from_plain_data(value: Any) -> None:
    description = describe(value)
    assert json.loads(json.dumps(description)) == description
    rebuilt = rebuild(description)
    assert same(rebuilt, value)
    assert describe(rebuilt) == description


def test_a_description_reads_like_yaml() -> None:
    cell = functools.partial(Zoneout, cell=LSTMCell, hidden=0.1)
    assert describe(cell) == {
        "class_path": "lm.cells.Zoneout",
        "init_args": {"cell": {"class_path": "lm.cells.LSTMCell", "init_args": {}}, "hidden": 0.1},
    }


def test_kinds_of_numbers_and_paths_that_weights_only_refuses_become_plain() -> None:
    plain = describe([np.float64(0.5), Path("a") / "b", (1, 2)])
    assert [type(value) for value in plain] == [float, str, list]
    assert plain == [0.5, str(Path("a", "b")), [1, 2]]


class Outer:
    class Inner:
        pass

    def method(self) -> None:
        pass


@pytest.mark.parametrize(
    "value",
    [
        lambda size, hidden: LSTM(size, hidden),
        nn.Linear(2, 2),
        torch.zeros(2),
        Outer.Inner,
        Outer().method,
        functools.partial(lambda size: size, size=3),
        {"deep": [lambda: None]},
        functools.partial(LSTM, 3),
        functools.partial(small_lstm, 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_name_is_refused_with_the_argument_it_was_given_for(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^Model\.cell.*: a checkpoint (cannot name|keeps arguments by name)"):
        describe(value, "Model.cell")


def test_a_class_of_a_function_is_refused() -> None:
    class Local(LSTM):
        pass

    with pytest.raises(ValueError, match=r"Model\.cell: a checkpoint cannot name .*Local"):
        describe(Local, "Model.cell")


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module that leaves a file behind when it is imported."""
    trace = tmp_path / "was_imported"
    (tmp_path / "a_stranger.py").write_text(
        f"from pathlib import Path\nfrom lm.layers import LSTM\nPath({str(trace)!r}).touch()\nclass Layer(LSTM): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_stranger", raising=False)
    return SimpleNamespace(path="a_stranger.Layer", trace=trace)


def test_a_strange_module_is_refused_without_being_imported(stranger: SimpleNamespace) -> None:
    description = {
        "layers": [{"class_path": "lm.cells.Zoneout", "init_args": {"cell": {"class_path": stranger.path, "init_args": {}}}}]
    }
    with pytest.raises(ValueError, match=r"names a_stranger\.Layer, .* if you trust it, import a_stranger first"):
        rebuild(description)
    assert not stranger.trace.exists()
    assert "a_stranger" not in sys.modules


def test_a_strange_module_will_do_once_the_caller_has_imported_it(
    stranger: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import a_stranger  # type: ignore[import-not-found]

    monkeypatch.setitem(sys.modules, "a_stranger", a_stranger)  # taken away again after the test
    assert trusted(stranger.path) is a_stranger.Layer


@pytest.mark.parametrize("path", ["subprocess.Popen", "os.system", "builtins.exec", "posix.system", "runpy.run_path"])
def test_python_itself_is_no_part_of_a_model(path: str) -> None:
    with pytest.raises(ValueError, match=f"names {path}, .* do not trust this file"):
        rebuild({"class_path": path, "init_args": {}})


@pytest.mark.parametrize("path", ["torch.save", "torch.hub.load", "torch.Generator"])
def test_of_torch_only_modules_optimizers_and_schedulers_are_parts_of_a_model(path: str) -> None:
    with pytest.raises(ValueError, match=f"names {path}, which is no module, optimizer or scheduler; do not trust this file"):
        rebuild({"class_path": path, "init_args": {}})


def test_only_dataclasses_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setitem(globals(), "small_lstm", lambda **arguments: called.append(arguments))
    attack = {"class_path": f"{__name__}.small_lstm", "init_args": {"input_size": 1}, "built": True}
    with pytest.raises(ValueError, match=r"it would call .*small_lstm, which is no dataclass"):
        rebuild(attack)
    assert not called


@pytest.mark.parametrize("path", ["lm.cells.NoSuchCell", "lm.no_such_module.Cell", "torch.nope.Nope"])
def test_a_name_that_does_not_exist_says_so(path: str) -> None:
    with pytest.raises(ValueError, match=f"names {path}, which does not exist here; import or install"):
        trusted(path)
