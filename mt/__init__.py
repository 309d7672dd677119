"""Sequence to sequence: what translates with the recurrent networks of lm."""

from mt.attention_decoder import AttentionDecoder
from mt.context_decoder import ContextDecoder
from mt.module import Seq2Seq
from mt.translation import Translation

__all__ = ["AttentionDecoder", "ContextDecoder", "Seq2Seq", "Translation"]
