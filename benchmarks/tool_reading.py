"""What reading an answer for thoughts and calls costs: `python benchmarks/tool_reading.py`.

Microseconds a character, for long answers in single characters and in pieces of four, at two
lengths: reading is linear, so both lengths cost the same.
"""

from __future__ import annotations

import time

from backplane_core.tool_parsers import ToolFunction
from backplane_server.text.reasoning import FAMILIES as REASONING
from backplane_server.tools.builtin import FAMILIES
from backplane_server.tools.reading import AnswerReader

LENGTHS = (20_000, 80_000)
BEGINNINGS = {
    "hermes": '<tool_call>{"name": "write", "arguments": {"text": "',
    "mistral": '[TOOL_CALLS]write[ARGS]{"text": "',
    "pythonic": '[write(text="',
    "llama3_json": '{"name": "write", "parameters": {"text": "',
    "json": '{"name": "write", "arguments": {"text": "',
}
FILLINGS = {
    "words": "lorem ipsum ",
    "escapes": "\\n",
    "nearly marks": "<tool_[TOOL_`",
    "spaces": " ",
}


def microseconds(family: type, text: str, size: int) -> float:
    """Time for each character of `text`, in pieces of `size`."""
    reader = AnswerReader(REASONING[1].splitter(""), family([ToolFunction(name="write")]))
    start = time.process_time()
    for position in range(0, len(text), size):
        reader.push(text[position : position + size])
    reader.finish()
    return (time.process_time() - start) / len(text) * 1e6


def main() -> None:
    """Print a table."""
    print(f"{'family':12} {'answer':22} {'1 char':>16} {'4 chars':>16}   at {LENGTHS}")
    for family in FAMILIES:
        for what, beginning in (("content", ""), ("arguments", BEGINNINGS[family.name])):
            for name, filling in FILLINGS.items():
                row: list[str] = []
                for size in (1, 4):
                    texts = (beginning + filling * (n // len(filling)) for n in LENGTHS)
                    row.append(" ".join(f"{microseconds(family, t, size):7.2f}" for t in texts))
                print(f"{family.name:12} {what + ', ' + name:22} {row[0]:>16} {row[1]:>16}")


if __name__ == "__main__":
    main()
