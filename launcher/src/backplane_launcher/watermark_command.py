"""`backplane detect-watermark`: whether a text bears the watermark, by its tokens."""

from typing import TextIO

import msgspec
from backplane_core.errors import SetupError
from backplane_core.watermark import WatermarkVerdict, detect, least_scored

from backplane_launcher.commands import DetectWatermarkCommand
from backplane_launcher.local_path import local_path
from backplane_launcher.server_client import ask_server
from backplane_launcher.usage import UsageError

EXIT_NOT_WATERMARKED = 1
EXIT_TOO_SHORT = 3


class _Token(msgspec.Struct):
    id: int


class _Report(msgspec.Struct):
    watermarked: bool | None  # null: too short to tell
    z_score: float
    p_value: float
    num_tokens: int
    num_scored: int
    num_green: int
    least_scored: int
    gamma: float


def detect_watermark(command: DetectWatermarkCommand, stdin: TextIO, output: TextIO) -> int:
    """Print the verdict; the exit code: 0 watermarked, 1 not, 3 for a text too short to tell.

    Raises:
        UsageError: the text or the tokens cannot be read.
        SetupError: the file has no such home; the server does not answer as one of ours.
    """
    token_ids = _token_ids(command, _text(command.file, stdin))
    verdict = detect(token_ids, command.gamma)
    if command.as_json:
        output.write(msgspec.json.encode(_report(verdict, token_ids, command.gamma)).decode())
        output.write("\n")
    else:
        output.write(_sentence(verdict, len(token_ids), command.gamma))
    if _is_too_short(verdict, command.gamma):
        return EXIT_TOO_SHORT
    return 0 if verdict.watermarked else EXIT_NOT_WATERMARKED


def _is_too_short(verdict: WatermarkVerdict, gamma: float) -> bool:
    return verdict.num_scored < least_scored(gamma)


def _text(file: str, stdin: TextIO) -> str:
    try:
        return stdin.read() if file == "-" else local_path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"{file} cannot be read: {why}", remedy="name a text file") from error


def _token_ids(command: DetectWatermarkCommand, text: str) -> list[int]:
    if command.url is None:
        try:
            return msgspec.json.decode(text, type=list[int])
        except msgspec.DecodeError as error:
            raise UsageError(
                f"{command.file} holds no token ids: {error}",
                remedy="--tokens wants a JSON array such as [12, 7, 301]",
            ) from error
    question = {"inputs": text, "add_special_tokens": False}
    answer = ask_server(command.url, "/tokenize", question, api_key=command.api_key)
    try:
        tokens = msgspec.json.decode(answer, type=list[_Token])
    except msgspec.DecodeError as error:
        raise SetupError(
            f"{command.url} answers /tokenize in another form: {error}",
            remedy="name a Backplane server",
        ) from error
    return [token.id for token in tokens]


def _sentence(verdict: WatermarkVerdict, num_tokens: int, gamma: float) -> str:
    share = verdict.num_green / verdict.num_scored if verdict.num_scored else 0.0
    finding = "watermarked" if verdict.watermarked else "not watermarked"
    if _is_too_short(verdict, gamma):
        finding = f"too short to tell (below {least_scored(gamma)} scored tokens)"
    return (
        f"{finding}: "
        f"z {verdict.z_score:.2f}, p {verdict.p_value:.2g}; {verdict.num_green} of "
        f"{verdict.num_scored} scored tokens are green ({share:.0%}, by chance {gamma:.0%}), "
        f"of {num_tokens} tokens\n"
    )


def _report(verdict: WatermarkVerdict, token_ids: list[int], gamma: float) -> _Report:
    return _Report(
        watermarked=None if _is_too_short(verdict, gamma) else verdict.watermarked,
        z_score=verdict.z_score,
        p_value=verdict.p_value,
        num_tokens=len(token_ids),
        num_scored=verdict.num_scored,
        num_green=verdict.num_green,
        least_scored=least_scored(gamma),
        gamma=gamma,
    )
