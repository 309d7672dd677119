"""Lightning Callbacks for training recurrent networks, one a file."""

from callbacks.averaging import CheckpointAverage
from callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from callbacks.clipping import GradientClipping
from callbacks.curve import LearningCurve
from callbacks.forecasts import DrawForecasts
from callbacks.gradient_flow import GradientFlow
from callbacks.interruption import StopOnSignal
from callbacks.nt_asgd import NTASGD
from callbacks.pretrained_vectors import PretrainedVectors
from callbacks.regularization import RNNRegularization
from callbacks.report import RunReport
from callbacks.samples import SampleText
from callbacks.starting import StartFrom
from callbacks.state import HiddenStateReset
from callbacks.throughput import Throughput
from callbacks.translation_samples import SampleTranslations
from callbacks.tying import WeightTying
from callbacks.unfreezing import GradualUnfreezing
from callbacks.window_rescale import WindowRescale

__all__ = [
    "NTASGD",
    "BestCheckpoint",
    "CheckpointAverage",
    "DrawForecasts",
    "GradientClipping",
    "GradientFlow",
    "GradualUnfreezing",
    "HiddenStateReset",
    "LastCheckpoint",
    "LearningCurve",
    "PretrainedVectors",
    "RNNRegularization",
    "RunReport",
    "SampleText",
    "SampleTranslations",
    "StartFrom",
    "StopOnSignal",
    "Throughput",
    "WeightTying",
    "WindowRescale",
]
