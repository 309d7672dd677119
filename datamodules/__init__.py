"""Text in, batches out: sources, tokenizers, streams, and the LightningDataModules that join them."""

from datamodules.bucketing import TranslationBatch
from datamodules.language import LanguageData
from datamodules.streams import Window
from datamodules.tokenizers import Tokenizer
from datamodules.translation import TranslationData

__all__ = ["LanguageData", "Tokenizer", "TranslationBatch", "TranslationData", "Window"]
