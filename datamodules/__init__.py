"""Text in, batches out: sources, tokenizers, streams, and the LightningDataModules that join them."""

from datamodules.language import LanguageData
from datamodules.streams import Window
from datamodules.tokenizers import Tokenizer

__all__ = ["LanguageData", "Tokenizer", "Window"]
