"""How much text is encoded at most for a number of tokens: judged by its length alone.

Encoding costs time by the byte, and a body may hold a hundred times more than a prompt may.
"""

from typing import Final

from backplane_core.errors import ValidationError

from backplane_server.text.detokenizer import TokenTable

# A token may stand for more of a text than its own bytes: tokenizers fold runs of spaces, strip
# those beside a special token, and fuse unknown characters. So four times the bytes are allowed.
_SLACK: Final = 4
# Tokens beside a cut depend on what was cut off; these bytes in front of what is kept do not.
_MARGIN_BYTES: Final = 4096


def check_length(text: str, name: str, max_tokens: int, table: TokenTable) -> None:
    """Refuse a text that is too long to be worth encoding for `max_tokens` tokens.

    It is one of more than `_SLACK` times the bytes of so many longest tokens. Only a tokenizer
    that drops most of a text (a megabyte of spaces, say) could have made few tokens of it.

    Args:
        text: what is to be encoded.
        name: the client's name for it.
        max_tokens: how many tokens are taken.
        table: tells how long the longest token is.

    Raises:
        ValidationError: the text is too long.
    """
    num_bytes = len(text.encode())
    max_bytes = max_tokens * table.max_token_bytes * _SLACK
    if num_bytes > max_bytes:
        raise ValidationError(
            f"`{name}` must have less than {max_tokens + 1} tokens, for which at most {max_bytes} "
            f"bytes are read. Given: {num_bytes} bytes",
            parameter=name,
        )


def keep_end(text: str, num_tokens: int, table: TokenTable) -> str:
    """The end of a text, cut between characters, to find its last `num_tokens` tokens in.

    They lie in it unless the tokenizer drops most of a text; see `check_length`.
    """
    data = text.encode()
    num_bytes = num_tokens * table.max_token_bytes * _SLACK + _MARGIN_BYTES
    if len(data) <= num_bytes:
        return text
    return data[-num_bytes:].decode("utf-8", "ignore")
