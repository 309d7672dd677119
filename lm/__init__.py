"""Networks and LightningModules that model a sequence from its own past."""

from lm.base import SequenceModule
from lm.module import LanguageModel
from lm.network import RecurrentNetwork, RNNOutput
from lm.sampling import Sampling
from lm.schedule import Schedule
from lm.text_model import TextModel

__all__ = ["LanguageModel", "RNNOutput", "RecurrentNetwork", "Sampling", "Schedule", "SequenceModule", "TextModel"]
