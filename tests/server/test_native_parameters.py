"""TGI's parameters one by one: type, rule, sentence, and which of two faults is named."""

import itertools

import pytest

LIMIT = 4096 - 1  # the echo's max_input_tokens
# In the order in which TGI looks: name, a value that breaks its rule, what the sentence says.
RULES = [
    ("best_of", {"best_of": 3, "do_sample": True}, ["at most 2", "Given: 3", "--max-best-of"]),
    ("best_of", {"best_of": 2}, ["sampling"]),
    ("temperature", {"temperature": 0}, ["more than 0", "Given: 0"]),
    ("temperature", {"temperature": -1.5}, ["more than 0", "Given: -1.5"]),
    ("temperature", {"temperature": 1e7}, ["at most 1e+06"]),
    ("repetition_penalty", {"repetition_penalty": 0.0}, ["more than 0"]),
    ("repetition_penalty", {"repetition_penalty": 1e-30}, ["more than 0"]),
    ("frequency_penalty", {"frequency_penalty": 2.01}, ["at most 2.0", "Given: 2.01"]),
    ("frequency_penalty", {"frequency_penalty": -2.01}, ["at least -2.0"]),
    ("top_p", {"top_p": 1.01}, ["at most 1", "Given: 1.01"]),
    ("top_p", {"top_p": 0.0}, ["more than 0"]),
    ("typical_p", {"typical_p": 1.0}, ["less than 1"]),
    ("typical_p", {"typical_p": -0.5}, ["more than 0"]),
    ("top_k", {"top_k": 0}, ["more than 0"]),
    ("top_k", {"top_k": -5}, ["more than 0", "Given: -5"]),
    ("max_new_tokens", {"max_new_tokens": 0}, ["more than 0"]),
    ("max_new_tokens", {"max_new_tokens": -1}, ["more than 0", "Given: -1"]),
    ("stop", {"stop": list("abcde")}, ["at most 4", "Given: 5", "--max-stop-sequences"]),
    ("stop", {"stop": ["a", ""]}, ["1 to 1000"]),
    ("stop", {"stop": "x" * 1001}, ["1 to 1000"]),
    ("seed", {"seed": 1, "best_of": 2, "do_sample": True}, ["`best_of`"]),
    ("top_n_tokens", {"top_n_tokens": 6}, ["at most 5", "Given: 6", "--max-top-n-tokens"]),
    ("inputs", {}, ["empty"]),
    ("truncate", {"truncate": 0}, ["at least 1", f"at most {LIMIT}", "Given: 0"]),
    ("truncate", {"truncate": -1}, ["at least 1"]),
    ("truncate", {"truncate": LIMIT + 1}, [f"Given: {LIMIT + 1}"]),
    ("max_new_tokens", {"max_new_tokens": LIMIT}, ["<= 4096", f"and {LIMIT} `max_new_tokens`"]),
]
IDS = [f"{name}-{number}" for number, (name, _, _) in enumerate(RULES)]
# These are told while the body is read, before any rule: what the types cannot hold.
TYPES = [
    ("best_of", -1),
    ("best_of", 1.5),
    ("temperature", "hot"),
    ("top_k", 2**31),
    ("top_k", "5"),
    ("max_new_tokens", 2**32),
    ("stop", 5),
    ("stop", ["a", None]),
    ("do_sample", "yes"),
    ("details", 1),
    ("watermark", "on"),
    ("seed", -1),
    ("seed", 0.5),
    ("top_n_tokens", -1),
    ("adapter_id", 7),
]


def refusal(stack, parameters, *, inputs="hello", path="/generate"):
    response = stack.post(path, {"inputs": inputs, "parameters": parameters})
    assert response.status_code == 422, response.text
    body = response.json()
    assert body["error_type"] == "validation"
    assert body["error"].startswith("Input validation error: ")
    return body["error"].removeprefix("Input validation error: ")


@pytest.mark.parametrize(("name", "fault", "words"), RULES, ids=IDS)
@pytest.mark.parametrize("path", ["/generate", "/"])
def test_each_rule_is_told_with_its_limit(stack, path, name, fault, words):
    sentence = refusal(stack, fault, inputs="" if name == "inputs" else "hello", path=path)
    assert f"`{name}`" in sentence
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(("name", "value"), TYPES)
def test_each_type_is_told_while_the_body_is_read(stack, name, value):
    # A broken rule beside it is not reached.
    sentence = refusal(stack, {name: value, **({} if name == "stop" else {"stop": [""]})})
    assert f"`parameters.{name}" in sentence


def test_a_seed_is_any_of_64_bits(stack):
    assert "2**64" in refusal(stack, {"seed": 2**64})
    for seed in (0, 2**63, 2**64 - 1):
        parameters = {"seed": seed, "do_sample": True, "details": True, "max_new_tokens": 1}
        answer = stack.post("/generate", {"inputs": "x", "parameters": parameters}).json()
        assert answer["details"]["seed"] == seed


NARROWING = {"temperature", "top_p", "typical_p", "top_k"}
PAIRS = [
    (first, second)
    for first, second in itertools.combinations(RULES, 2)
    if first[0] != second[0]
    and not set(first[1]) & set(second[1])
    # What narrows also samples, which mends the first fault.
    and not (first[1] == {"best_of": 2} and NARROWING & set(second[1]))
]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_of_two_faults_the_first_in_tgis_order_is_named(stack, path):
    assert len(PAIRS) > 200
    for first, second in PAIRS:
        parameters = {**second[1], **first[1]}
        if path == "/generate_stream" and "best_of" in parameters:
            continue
        inputs = "" if "inputs" in {first[0], second[0]} else "hello"
        sentence = refusal(stack, parameters, inputs=inputs, path=path)
        assert f"`{first[0]}`" in sentence, (first, second, sentence)
        assert f"`{second[0]}`" not in sentence, (first, second, sentence)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"best_of": 2, "do_sample": True}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"decoder_input_details": True}, "decoder_input_details"),
        ({"decoder_input_details": True, "temperature": 0}, "decoder_input_details"),
        ({"best_of": 2, "decoder_input_details": True}, "best_of"),
    ],
)
def test_what_no_stream_has_is_refused_there_first(stack, parameters, name):
    sentence = refusal(stack, parameters, path="/generate_stream")
    assert sentence.startswith(f"`{name}`")
    assert "stream" in sentence
    compat = {"inputs": "x", "stream": True, "parameters": parameters}
    assert sentence in stack.post("/", compat).json()["error"]


def test_the_sum_is_looked_at_before_the_prompt_alone(stack):
    long = "x" * LIMIT  # one more with the first token
    sentence = refusal(stack, {"max_new_tokens": 1}, inputs=long)
    assert f"Given: {LIMIT + 1} `inputs` tokens and 1 `max_new_tokens`" in sentence
    sentence = refusal(stack, {}, inputs=long)
    assert f"`inputs` must have less than {LIMIT + 1} tokens. Given: {LIMIT + 1}" in sentence
    sentence = refusal(stack, {}, inputs=long + "x")
    assert f"Given: {LIMIT + 2} `inputs` tokens and 0 `max_new_tokens`" in sentence


@pytest.mark.parametrize(
    "parameters",
    [
        dict.fromkeys(
            ("best_of", "temperature", "top_k", "seed", "grammar", "adapter_id", "stop", "truncate")
        ),
        {"best_of": 0},
        {"best_of": 1, "seed": 5},
        {"temperature": 1e6},
        {"repetition_penalty": 1000.0},
        {"frequency_penalty": -2},
        {"top_p": 1.0},
        {"top_n_tokens": 5},
        {"truncate": LIMIT},
        {"stop": []},
        {"adapter_id": ""},
        {"watermark": False},
    ],
)
def test_what_lies_at_the_edge_is_taken(stack, parameters):
    parameters = {"max_new_tokens": 2, **parameters}
    assert stack.post("/generate", {"inputs": "x", "parameters": parameters}).status_code == 200


def test_a_great_many_stop_strings_are_refused(stack):
    assert "Given: 400000" in refusal(stack, {"stop": ["a"] * 400_000})


def test_limits_are_the_operators(stack_module):
    with stack_module.Stack(max_best_of=1, max_stop_sequences=6, max_top_n_tokens=0) as stack:
        assert "must be 1 here" in refusal(stack, {"best_of": 2, "do_sample": True})
        assert "Given: 1" in refusal(stack, {"top_n_tokens": 1})
        info = stack.get("/info").json()
        assert (info["max_best_of"], info["max_stop_sequences"]) == (1, 6)
        body = {"inputs": "x", "parameters": {"stop": list("abcdef"), "best_of": 0}}
        assert stack.post("/generate", body).status_code == 200
