"""Fixtures of `commands`, which other files import types from: there is more than one conftest.py."""

from commands import call as call
from commands import cli as cli
from commands import experiment as experiment
from commands import on_path as on_path
from commands import trained as trained
from commands import variant as variant
from translation_runs import translator as translator
