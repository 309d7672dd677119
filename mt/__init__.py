"""Sequence to sequence: what translates with the recurrent networks of lm."""

from mt.decoder import AttentionDecoder, ContextDecoder
from mt.module import Seq2Seq
from mt.translation import Translation

__all__ = ["AttentionDecoder", "ContextDecoder", "Seq2Seq", "Translation"]
