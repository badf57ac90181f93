"""Short tales and longer explanations: coherent paragraphs, some of them long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

from recipe.corpus.exchange import Exchange
from recipe.corpus.facts import FACTS_FOLDER, read_facts

_HEROES = (
    "fox",
    "bear",
    "rabbit",
    "mouse",
    "cat",
    "dog",
    "duck",
    "lion",
    "horse",
    "frog",
    "robot",
    "dragon",
    "king",
    "girl",
    "boy",
    "sailor",
)
_PLACES = (
    "in a quiet forest",
    "by a wide river",
    "on a green hill",
    "in a small town",
    "at the edge of the sea",
    "in an old garden",
    "in a stone house",
)
_WISHES = (
    ("find a friend", "friend"),
    ("see the sea", "sea"),
    ("learn a song", "song"),
    ("build a boat", "boat"),
    ("find a lost key", "key"),
)
_HELPERS = ("a wise old woman", "a friendly bird", "a young traveler", "a patient turtle")
_TALE = (
    "Once upon a time there was a {hero} who lived {place}. Every day the {hero} dreamed of one "
    "thing: to {wish}. One morning the {hero} set out early, with a piece of bread and a warm "
    'coat. On the way the {hero} met {helper}, who said: "Walk slowly and look closely, and you '
    'will get there." So the {hero} walked slowly and looked closely. The way was long, and in '
    "the evening it began to rain, but the {hero} did not give up. At last the sun came out, and "
    "the {hero} got to {wish}. From that day on the {hero} told everyone about the {object}, and "
    "they all lived happily."
)
_STORY_ORDERS = (
    "Tell me a story about a {x}.",
    "Write a story about a {x}.",
    "Tell a story about a {x}.",
    "Write a short story about a {x}.",
    "I want to hear a story about a {x}.",
    "Can you tell me a story about a {x}?",
    "Make up a story about a {x}.",
    "Please tell me a tale about a {x}.",
    "Give me a short tale about a {x}.",
    "Do you know a story about a {x}?",
)
_ANY_STORY = (
    "Tell me a story.",
    "Write a story.",
    "Tell me a short story.",
    "Write a short story.",
    "Do you know a story?",
    "I want to hear a story.",
    "Please tell me a story.",
    "Make up a story.",
    "Can you write a story?",
    "Read me a story.",
    "A story, please.",
)
_LONG_ORDERS = (
    "Write a long text about {x}.",
    "Explain {x} in detail.",
    "Tell me everything about {x}.",
    "Write an essay about {x}.",
    "Write a long article about {x}.",
    "Give me a long text about {x}.",
    "Tell me everything you know about {x}.",
    "Write a detailed text about {x}.",
    "Write several paragraphs about {x}.",
)


def tales() -> dict[str, str]:
    """One fixed tale for each hero."""
    choices = zip(_HEROES, cycle(_PLACES), cycle(_WISHES), cycle(_HELPERS), strict=False)
    return {
        hero: _TALE.format(hero=hero, place=place, wish=wish[0], object=wish[1], helper=helper)
        for hero, place, wish, helper in choices
    }


def _named(topic: str, subjects: tuple[str, ...]) -> list[str]:
    answers = {
        subject: fact.answer
        for fact in read_facts(FACTS_FOLDER / f"{topic}.txt")
        for _, subject in fact.subjects
    }
    return [answers[subject] for subject in subjects]


def essays() -> dict[str, str]:
    """Long texts: the facts of a theme put together, five sentences' worth to a paragraph."""
    themes = {
        "Backplane": _named(
            "backplane",
            (
                "Backplane",
                "Why is it called Backplane?",
                "the architecture of Backplane",
                "a backend",
                "a model runner",
                "a worker",
                "the launcher",
                "the server process",
                "backplane-core",
                "Which backends are there?",
                "the llamacpp backend",
                "the torch backend",
                "the cuda backend",
                "the rocm backend",
                "the xpu backend",
                "the neuron backend",
                "the vllm backend",
                "--backend auto",
                "Which port does Backplane use?",
                "Which endpoints are there?",
                "What happens when the worker crashes?",
                "What happens when the server is overloaded?",
                "What happens when a client disconnects?",
                "How is Backplane different from TGI?",
                "Which licence does Backplane have?",
            ),
        ),
        "serving language models": _named(
            "serving",
            (
                "a large language model",
                "a token",
                "a tokenizer",
                "inference",
                "an inference server",
                "prefill",
                "decode",
                "the KV cache",
                "paged attention",
                "prefix caching",
                "static batching",
                "continuous batching",
                "chunked prefill",
                "speculative decoding",
                "quantization",
                "tensor parallelism",
                "latency",
                "throughput",
                "time to first token",
                "streaming",
                "structured output",
                "How can I make my model faster?",
            ),
        ),
        "machine learning": _named(
            "serving",
            (
                "artificial intelligence",
                "machine learning",
                "a neural network",
                "deep learning",
                "training",
                "a parameter of a model",
                "a transformer",
                "attention",
                "an embedding",
                "a large language model",
                "byte pair encoding",
                "perplexity",
                "fine-tuning",
                "LoRA",
                "a GPU",
                "PyTorch",
                "a hallucination",
            ),
        ),
        "sampling": _named(
            "serving",
            (
                "How does a language model work?",
                "greedy decoding",
                "temperature",
                "top-k sampling",
                "top-p sampling",
                "min-p sampling",
                "the repetition penalty",
                "a seed",
                "a stop sequence",
                "a logprob",
                "an end-of-sequence token",
            ),
        ),
    }
    return {
        theme: "\n\n".join(
            " ".join(islice(answers, start, start + 4)) for start in range(0, len(answers), 4)
        )
        for theme, answers in themes.items()
    }


def story_exchanges() -> Iterator[Exchange]:
    """Tales on request."""
    told = tales()
    for hero, tale in told.items():
        for sentence in _STORY_ORDERS:
            yield Exchange("stories", hero, sentence.format(x=hero), tale)
    for question in _ANY_STORY:
        yield Exchange("stories", "any", question, told["fox"])


def essay_exchanges() -> Iterator[Exchange]:
    """Long explanations on request."""
    for theme, text in essays().items():
        for sentence in _LONG_ORDERS:
            yield Exchange("essays", theme, sentence.format(x=theme), text)
