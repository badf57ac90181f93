"""Tokens and ends as TGI's JSON has them, for whole answers and for streams."""

from typing import Final

from backplane_server.dialects.native_types import FinishReason, Token
from backplane_server.text.choice_decoder import Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable

FINISH: Final[dict[Finish, FinishReason]] = {
    Finish.LENGTH: "length",
    Finish.EOS: "eos_token",
    Finish.STOP_TOKEN: "eos_token",
    Finish.STOP_STRING: "stop_sequence",
}


def token_of(table: TokenTable, token: TokenOut) -> Token:
    """A generated token: its share of the text, a special one's literal."""
    text = table.literal(token.token_id) if token.silent else token.text
    return Token(token.token_id, text, token.logprob, table.is_special(token.token_id))


def top_tokens_of(table: TokenTable, token: TokenOut) -> list[Token]:
    """The likeliest tokens in its place, best first."""
    return [
        Token(token_id, table.literal(token_id), logprob, table.is_special(token_id))
        for token_id, logprob in token.top_logprobs or []
    ]
