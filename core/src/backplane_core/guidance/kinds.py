"""Which kinds of grammar a runner can obey here; asked before anything of llguidance is loaded."""

from importlib.util import find_spec

from backplane_core.vocabulary import Vocabulary


def supported_kinds(vocabulary: Vocabulary) -> tuple[str, ...]:
    """For `Capabilities.grammars`: all kinds, or none.

    None without llguidance (the extra `guidance` of backplane-core) and for a model without an
    end token, whose texts could never be whole.
    """
    if find_spec("llguidance") is None or not vocabulary.eos_token_ids:
        return ()
    return ("json_schema", "regex", "lark")
