"""Text to tokens and back, over HTTP: `/tokenize`, `/detokenize`, `/chat_tokenize`."""

import pytest

BOS, EOS, START, END = 256, 257, 258, 259
CHAT = {"messages": [{"role": "user", "content": "hé"}]}


def tokens(response):
    assert response.status_code == 200, response.text
    return response.json()


def problem(response):
    assert response.status_code == 422, response.text
    assert response.json()["error_type"] == "validation"
    return response.json()["error"]


def test_tokenize_gives_ids_and_byte_offsets(stack):
    assert tokens(stack.post("/tokenize", {"inputs": "hé<|eos|>"})) == [
        {"id": BOS, "text": "", "start": 0, "stop": 0},
        {"id": 104, "text": "h", "start": 0, "stop": 1},
        {"id": 195, "text": "�", "start": 1, "stop": 2},
        {"id": 169, "text": "�", "start": 2, "stop": 3},
        {"id": EOS, "text": "<|eos|>", "start": 3, "stop": 10},
    ]


def test_tokenize_leaves_special_tokens_out_where_told_to(stack):
    bare = tokens(stack.post("/tokenize", {"inputs": "h", "add_special_tokens": False}))
    assert [token["id"] for token in bare] == [104]


def test_what_generation_is_told_of_truncate_means_nothing_to_tokenize(stack):
    body = {"inputs": "abc", "parameters": {"truncate": 1}}
    assert len(tokens(stack.post("/tokenize", body))) == 4


def test_tokenize_takes_what_a_prompt_may_have(stack):
    most = stack.get("/info").json()["max_input_tokens"]
    for inputs in ("x" * most, "x" * 1_000_000):
        response = stack.post("/tokenize", {"inputs": inputs})
        assert f"less than {most + 1} tokens" in problem(response)
    assert len(tokens(stack.post("/tokenize", {"inputs": "x" * (most - 1)}))) == most


@pytest.mark.parametrize("name", ["tokens", "ids"])
def test_detokenize_joins_before_it_decodes(stack, name):
    body = {name: [BOS, *"hé😀".encode(), EOS], "model": "anything"}
    answer = tokens(stack.post("/detokenize", body))
    assert answer == {"text": "<|bos|>hé😀<|eos|>", "prompt": "<|bos|>hé😀<|eos|>"}
    body["skip_special_tokens"] = True
    assert tokens(stack.post("/detokenize", body))["text"] == "hé😀"


@pytest.mark.parametrize("text", ["", "plain", "a\n\tb", "日本<|im_start|>"])
def test_there_and_back(stack, text):
    ids = [
        token["id"]
        for token in tokens(stack.post("/tokenize", {"inputs": text, "add_special_tokens": False}))
    ]
    assert tokens(stack.post("/detokenize", {"ids": ids}))["text"] == text


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "`tokens` or as `ids`"),
        ({"tokens": [1], "ids": [1]}, "`tokens` or as `ids`"),
        ({"ids": [1, 260]}, "`ids` holds token 260"),
        ({"tokens": [-1]}, "`tokens"),
        ({"tokens": [2**40]}, "`tokens"),
        ({"tokens": "1"}, "`tokens`"),
        ({"tokens": [1] * 4097}, "at most 4096"),
    ],
)
def test_what_detokenize_does_not_take(stack, body, word):
    assert word in problem(stack.post("/detokenize", body))


def test_chat_tokenize_shows_the_template_at_work_and_adds_nothing(stack):
    answer = tokens(stack.post("/chat_tokenize", CHAT))
    text = "<|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n"
    assert list(answer) == ["tokenize_response", "templated_text"]
    assert answer["templated_text"] == text
    response = answer["tokenize_response"]
    assert (response[0]["id"], response[0]["text"]) == (START, "<|im_start|>")
    assert BOS not in {token["id"] for token in response}
    spans = [text.encode()[token["start"] : token["stop"]] for token in response]
    assert b"".join(spans) == text.encode()


def test_chat_tokenize_counts_as_one_request_and_fails_natively(stack):
    before = stack.metrics()["tgi_request_count"]
    assert stack.post("/chat_tokenize", CHAT).status_code == 200
    assert "`messages`" in problem(stack.post("/chat_tokenize", {"messages": []}))
    response = stack.post(
        "/chat_tokenize", {"messages": [{"role": "user", "content": "x" * 99999}]}
    )
    assert "`messages` must have less than" in problem(response)
    assert stack.metrics()["tgi_request_count"] == before + 3


def test_what_only_tokenizes_is_no_success_no_failure_and_but_for_chats_no_request(stack):
    def told():
        return {name: value for name, value in stack.metrics().items() if "_request" in name}

    before = told()
    for path, good, bad in (
        ("/tokenize", {"inputs": "x"}, {"inputs": 5}),
        ("/detokenize", {"tokens": [104]}, {"tokens": [999_999]}),
        ("/chat_tokenize", CHAT, {"messages": []}),
    ):
        assert stack.post(path, good).status_code == 200
        assert stack.post(path, bad).status_code == 422
    after = told()
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changed == {"tgi_request_count": 2}


def test_ping_is_health(stack):
    for path in ("/ping", "/health"):
        response = stack.get(path)
        assert (response.status_code, response.content) == (200, b"")
