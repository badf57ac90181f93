"""SageMaker's names for TGI's variables, and the port its endpoints want.

TGI's SageMaker image renames them in a script of its own; here they are read by themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Final

_NAMES: Final[Mapping[str, str]] = {
    "MODEL_ID": "HF_MODEL_ID",
    "REVISION": "HF_MODEL_REVISION",
    "NUM_SHARD": "SM_NUM_GPUS",
    "QUANTIZE": "HF_MODEL_QUANTIZE",
    "TRUST_REMOTE_CODE": "HF_MODEL_TRUST_REMOTE_CODE",
    "PORT": "SAGEMAKER_BIND_TO_PORT",
}
VARIABLES: Final = frozenset(_NAMES.values())
_PORT: Final = "8080"


def variables_of(plain: str) -> tuple[str, ...]:
    """SageMaker's variable for the one that TGI reads as `plain`, if there is one."""
    return (_NAMES[plain],) if plain in _NAMES else ()


def is_here(environ: Mapping[str, str]) -> bool:
    """Whether this is a container that SageMaker started: it sets SAGEMAKER_… in each."""
    return any(name.startswith("SAGEMAKER_") for name in environ)


def defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """What SageMaker expects of a container without saying it: port 8080, unless it names one."""
    named = environ.get(_NAMES["PORT"], "").strip()
    return {_NAMES["PORT"]: _PORT} if is_here(environ) and not named else {}


def without_serve(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The arguments without the word `serve`, which SageMaker starts every container with."""
    words = list(argv)
    return words[1:] if words[:1] == ["serve"] and is_here(environ) else words
