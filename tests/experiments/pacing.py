"""Training that takes its time, so that a test can do something to it meanwhile."""

import time
from typing import Any

from lightning import Callback


class Pace(Callback):
    """Waits before every batch.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait."""
        time.sleep(self.seconds)
