"""How much a grammar may cost: to compile, to follow, and to keep."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceLimits:
    """Bounds on one grammar and on the cache of compiled ones.

    Work is counted in llguidance's units (its `LLParserLimits`), so that a verdict does not
    depend on how busy the machine is; times are the last resort.

    Attributes:
        max_source_bytes: a grammar's text, as UTF-8. Compiling many optional properties takes
            time by the square of their number: a second at this size.
        max_lexer_states: distinct states of the lexer, 1 to 2 kB each.
        max_grammar_size: symbols in all productions.
        initial_lexer_fuel: regular-expression nodes made while compiling; 50 000 take a ms.
        step_lexer_fuel: likewise for one mask; 14 000 take a ms.
        step_max_items: parser items made for one mask; 20 000 take a ms.
        max_items_in_row: parser items for one byte, which bounds ambiguity.
        compile_s: how long a request waits for its grammar before it fails.
        mask_s: how long one mask may be computed before the request fails.
        patience_s: a sequence one of whose masks a step waited for longer, or that took more of the
            processor's time, takes its turns for a while when its mask is there, and no step waits
            for it.
        queue_s: how long a mask may wait for a free thread before the request fails.
        max_cached_bytes, max_cached_grammars: compiled grammars kept for the next request.
    """

    max_source_bytes: int = 128 * 1024
    max_lexer_states: int = 50_000
    max_grammar_size: int = 200_000
    initial_lexer_fuel: int = 1_000_000
    step_lexer_fuel: int = 200_000
    step_max_items: int = 50_000
    max_items_in_row: int = 2_000
    compile_s: float = 10.0
    mask_s: float = 0.25
    patience_s: float = 0.01
    queue_s: float = 2.0
    max_cached_bytes: int = 64 * 1024 * 1024
    max_cached_grammars: int = 512
