"""Builds what Backplane is measured against: `python -m benchmarks.peers [NAME …]`.

Prints where each is. llama.cpp's programs take a quarter of an hour on two cores, the one with our
patches five minutes, vLLM 3 GB, transformers and torch 1 GB.
"""

import argparse
import functools

from benchmarks.peers import example_server, llama, transformers_serve, vllm

# The example is among the sources that the first one unpacks.
_PEERS = {
    "llama": llama.build,
    "llama-patched": functools.partial(llama.build, patched=True),
    "example-server": example_server.build,
    "vllm": vllm.build,
    "transformers-serve": transformers_serve.build,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(_PEERS)}; all of them if none")
    asked = parser.parse_args()
    if unknown := set(asked.peers) - set(_PEERS):
        parser.error(f"no peer is called {min(unknown)}; there are {', '.join(_PEERS)}")
    for name in asked.peers or _PEERS:
        print(_PEERS[name]())


if __name__ == "__main__":
    main()
