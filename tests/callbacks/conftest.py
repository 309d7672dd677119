"""Fixtures of `tiny_runs`, which other files import types from: there is more than one conftest.py."""

from tiny_runs import tiny_run as tiny_run
