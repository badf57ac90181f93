"""How many tokens a text has at least: known from its length, before anything is encoded.

Encoding costs time by the byte, and a body may hold a hundred times more than a prompt may.
"""

from typing import Final

from backplane_core.errors import ValidationError

from backplane_server.text.detokenizer import TokenTable

# Tokens beside a cut depend on what was cut off; these bytes in front of what is kept do not.
_MARGIN_BYTES: Final = 4096


def check_length(text: str, name: str, max_tokens: int, table: TokenTable) -> None:
    """Refuse a text that cannot have `max_tokens` tokens or fewer, whatever the tokenizer does.

    Args:
        text: what is to be encoded.
        name: the client's name for it.
        max_tokens: how many tokens are taken.
        table: no token of it stands for more than `table.max_token_bytes`.

    Raises:
        ValidationError: the text is too long.
    """
    num_least = -(-len(text.encode()) // table.max_token_bytes)
    if num_least > max_tokens:
        raise ValidationError(
            f"`{name}` must have less than {max_tokens + 1} tokens. Given: at least {num_least}",
            parameter=name,
        )


def keep_end(text: str, num_tokens: int, table: TokenTable) -> str:
    """The end of a text in which its last `num_tokens` tokens lie, cut between characters."""
    data = text.encode()
    num_bytes = num_tokens * table.max_token_bytes + _MARGIN_BYTES
    if len(data) <= num_bytes:
        return text
    return data[-num_bytes:].decode("utf-8", "ignore")
