"""Conformance: the vocabulary table, remote encoding, and ids nobody knows."""

from backplane_core.errors import ValidationError
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, decode, lasting
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.vocabulary import RemoteTokenizer

TEXTS = (
    "A plain sentence, with 12 numbers.",
    "  two spaces, a\ttab\nand a new line  ",
    "Grüße, 東京 and a 🦙.",
    "def f(x):\n    return x ** 2\n",
)


class TokenTests(ConformanceBase):
    """Text to ids and back."""

    def _require_remote(self, client: WorkerClient) -> None:
        remote = isinstance(client.info.tokenizer, RemoteTokenizer)
        self.require(remote, "a remote tokenizer")

    def test_encoded_texts_decode_to_themselves(self, backplane_client: WorkerClient) -> None:
        """Bytes of the encoded ids are the text's bytes, whatever the script."""
        self._require_remote(backplane_client)
        encoded = backplane_client.tokenize(list(TEXTS), add_special=False)
        assert len(encoded) == len(TEXTS)
        vocabulary = backplane_client.info.vocabulary
        for text, token_ids in zip(TEXTS, encoded, strict=True):
            assert decode(vocabulary, token_ids) == text
            assert backplane_client.tokenize([text], add_special=False) == [token_ids]

    def test_texts_encoded_at_once_do_not_mix(self, backplane_client: WorkerClient) -> None:
        """Long texts and short ones are encoded by two threads, and each answer is its own."""
        self._require_remote(backplane_client)
        requests = [[text * times] for times in (200, 1) for text in TEXTS] * 8
        together = backplane_client.tokenize_at_once(requests, add_special=False)
        for texts, encoded in zip(requests[: 2 * len(TEXTS)], together, strict=False):
            assert encoded == backplane_client.tokenize(texts, add_special=False)
        assert together == together[: 2 * len(TEXTS)] * 8

    def test_first_token_is_added_on_request(self, backplane_client: WorkerClient) -> None:
        """`add_special` puts the first token there exactly where the vocabulary says so."""
        self._require_remote(backplane_client)
        vocabulary = backplane_client.info.vocabulary
        [plain] = backplane_client.tokenize([TEXTS[0]], add_special=False)
        [special] = backplane_client.tokenize([TEXTS[0]], add_special=True)
        if vocabulary.add_bos:
            assert special[0] == vocabulary.bos_token_id
            assert special[1 : len(plain) + 1] == plain
        assert plain[0] != vocabulary.bos_token_id

    def test_special_texts_are_parsed_only_on_request(self, backplane_client: WorkerClient) -> None:
        """A user who writes an end token's text does not write an end token."""
        self._require_remote(backplane_client)
        vocabulary = backplane_client.info.vocabulary
        for token_id in vocabulary.eos_token_ids:
            text = f"one{vocabulary.tokens[token_id].decode()}two"
            [parsed] = backplane_client.tokenize([text], parse_special=True)
            [plain] = backplane_client.tokenize([text], parse_special=False)
            assert token_id in parsed
            assert token_id not in plain

    def test_unknown_token_ids_are_refused(self, backplane_client: WorkerClient) -> None:
        """The last id of the table is served; one past it is a validation error, anywhere."""
        client = backplane_client
        end = len(client.info.vocabulary.tokens)
        prompt = self.prompt(client)
        client.run([*prompt, end - 1], sampling=GREEDY, stopping=lasting(client, 2))
        plain = StoppingParams(max_new_tokens=2)
        wrong = [client.submit([*prompt, end], stopping=plain)]
        wrong.append(client.submit([*prompt, -1], stopping=plain))
        can = client.info.capabilities
        if "stop_token_ids" in can.stopping:
            stopping = StoppingParams(max_new_tokens=2, stop_token_ids=(end,))
            wrong.append(client.submit(prompt, stopping=stopping))
        if "logit_bias" in can.sampling:
            biased = SamplingParams(logit_bias={end: 1.0})
            wrong.append(client.submit(prompt, stopping=plain, sampling=biased))
        client.finish(wrong)
        assert all(isinstance(stream.error, ValidationError) for stream in wrong)
