"""Opens a model's own tokenizer, for counting tokens and for embedding.

It must never truncate or pad unless its user asks: what tokenizer.json was saved with is undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def open_tokenizer(path: Path) -> Any:  # noqa: ANN401 - tokenizers ships no types
    """Open a tokenizer.json without the truncation and padding it may have been saved with.

    Raises:
        ConfigurationError: the file is missing or no tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError(f"{path} cannot be read as a tokenizer.json") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 - as above
    """Token ids of a text without special tokens."""
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    ids: list[int] = encoding.ids
    return ids
