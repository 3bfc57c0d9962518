"""The embedded models' tokenizer: byte-level BPE over the corpus, 4,096 entries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

VOCABULARY = 4096
SPECIAL = ("<pad>", "<bos>", "<eos>")


def train_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Train on ``texts`` and save in the layout that ``AutoTokenizer`` loads.

    Ids 0, 1, 2 are pad, bos, eos; every byte has an id, so any text round-trips.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos = SPECIAL
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    wrapped.save_pretrained(folder)
