"""Whether two tokenizers give the same ids to the same tokens, asked often and answered soon."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

_KNOWN: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> its length and its fingerprint


def fingerprint(tokenizer) -> str:
    """Hash of a vocabulary; made again only where tokens were added since."""
    size, known = _KNOWN.get(tokenizer, (-1, ""))
    if size != len(tokenizer):
        words = sorted(tokenizer.get_vocab().items())
        known = hashlib.sha256(repr(words).encode()).hexdigest()
        _KNOWN[tokenizer] = len(tokenizer), known
    return known
