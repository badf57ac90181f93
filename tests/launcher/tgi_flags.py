"""TGI's 54 launcher flags, each with a value and what must come of it. The oracle of the table."""

from dataclasses import dataclass, field
from typing import Any

# In the order of `text-generation-launcher --help`, TGI 3.3: what the table must cover.
_LIST = """
--model-id --revision --validation-workers --sharded --num-shard --quantize --speculate --dtype
--kv-cache-dtype --trust-remote-code --max-concurrent-requests --max-best-of --max-stop-sequences
--max-top-n-tokens --max-input-tokens --max-input-length --max-total-tokens --waiting-served-ratio
--max-batch-prefill-tokens --max-batch-total-tokens --max-waiting-tokens --max-batch-size
--cuda-graphs --hostname --port --prometheus-port --shard-uds-path --master-addr --master-port
--huggingface-hub-cache --weights-cache-override --disable-custom-kernels --cuda-memory-fraction
--rope-scaling --rope-factor --json-output --otlp-endpoint --otlp-service-name --cors-allow-origin
--api-key --watermark-gamma --watermark-delta --ngrok --ngrok-authtoken --ngrok-edge
--tokenizer-config-path --disable-grammar-support --env --max-client-batch-size --lora-adapters
--usage-stats --payload-limit --enable-prefill-logprobs --graceful-termination-timeout
"""
TGI_FLAGS = _LIST.split()


@dataclass(frozen=True)
class Row:
    """One flag. Exactly one of: changes in the documents, changes in the settings, notice, refusal.

    Attributes:
        text: the value; None for a flag that takes none.
        variable: the environment's twin.
        engine, server: fields of the worker's and the servers' documents that change, and to what.
        launcher: fields of the settings that change what the launcher itself does.
        notice: the sentence that says what replaces it.
        refusal: the sentence that says what to do instead.
        environ: what must be set besides.
    """

    flag: str
    text: str | None
    variable: str
    engine: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    launcher: dict[str, Any] = field(default_factory=dict)
    notice: str | None = None
    refusal: str | None = None
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        return [self.flag] if self.text is None else [self.flag, self.text]

    @property
    def variables(self) -> dict[str, str]:
        return {self.variable: "true" if self.text is None else self.text} | self.environ


def _row(flag: str, text: str | None = None, **outcome) -> Row:
    variable = flag.removeprefix("--").replace("-", "_").upper()
    return Row(flag=flag, text=text, variable=outcome.pop("variable", variable), **outcome)


CHUNKS = "prompts are computed in chunks beside running requests"
NGROK = "run `ngrok http PORT` beside it"

TABLE = [
    _row("--model-id", "echo:y", launcher={"model_id": "echo:y"}),
    _row("--revision", "v1", launcher={"revision": "v1"}),
    _row("--validation-workers", "3", server={"validation_workers": 3}),
    _row("--sharded", "true", engine={"num_shard": 2}, launcher={"sharded": "true"}),
    _row("--num-shard", "3", engine={"num_shard": 3}, launcher={"num_shard": 3}),
    _row("--quantize", "bitsandbytes-nf4", engine={"quantize": "bitsandbytes-nf4"}),
    _row("--speculate", "3", engine={"speculate": 3}),
    _row("--dtype", "bfloat16", engine={"dtype": "bfloat16"}),
    _row("--kv-cache-dtype", "fp8_e5m2", engine={"kv_cache_dtype": "fp8_e5m2"}),
    _row("--trust-remote-code", engine={"trust_remote_code": True}),
    _row(
        "--max-concurrent-requests",
        "7",
        engine={"max_concurrent_requests": 7},
        server={"max_concurrent_requests": 7},
    ),
    _row("--max-best-of", "7", server={"max_best_of": 7}),
    _row("--max-stop-sequences", "7", server={"max_stop_sequences": 7}),
    _row("--max-top-n-tokens", "7", server={"max_top_n_tokens": 7}),
    _row("--max-input-tokens", "70", engine={"max_input_tokens": 70}),
    _row("--max-input-length", "70", engine={"max_input_tokens": 70}),
    _row("--max-total-tokens", "90", engine={"max_total_tokens": 90}),
    _row("--waiting-served-ratio", "1.2", notice=CHUNKS),
    _row("--max-batch-prefill-tokens", "50", engine={"max_batch_prefill_tokens": 50}),
    _row("--max-batch-total-tokens", "900", engine={"max_batch_total_tokens": 900}),
    _row("--max-waiting-tokens", "20", notice=CHUNKS),
    _row("--max-batch-size", "5", engine={"max_batch_size": 5}),
    _row("--cuda-graphs", "1,2,4", engine={"cuda_graphs": (1, 2, 4)}),
    _row("--hostname", "127.0.0.1", server={"hostname": "127.0.0.1"}),
    _row("--port", "8080", launcher={"port": 8080}),
    _row("--prometheus-port", "9001", notice="/metrics of the main port"),
    _row("--shard-uds-path", "/tmp/x", notice="a private folder of each launch"),  # noqa: S108 -- TGI's form of a value
    _row("--master-addr", "localhost", notice="finds its own meeting point"),
    _row("--master-port", "29500", notice="finds its own meeting point"),
    _row("--huggingface-hub-cache", "here", launcher={"huggingface_hub_cache": "here"}),
    _row("--weights-cache-override", "here", launcher={"weights_cache_override": "here"}),
    _row("--disable-custom-kernels", notice="the backend's choice"),
    _row("--cuda-memory-fraction", "0.5", engine={"memory_fraction": 0.5}),
    _row("--rope-scaling", "dynamic", engine={"rope_scaling": "dynamic", "rope_factor": 1.0}),
    _row("--rope-factor", "2", engine={"rope_scaling": "linear", "rope_factor": 2.0}),
    _row("--json-output", server={"log_json": True}),
    _row("--otlp-endpoint", "http://x:4317", notice="no traces are sent yet"),
    _row("--otlp-service-name", "x", notice="no traces are sent yet"),
    _row("--cors-allow-origin", "http://a", server={"cors_allow_origin": ("http://a",)}),
    _row("--api-key", "k", server={"api_keys": ("k",)}),
    _row("--watermark-gamma", "0.25", server={"watermark_gamma": 0.25}),
    _row("--watermark-delta", "4", server={"watermark_delta": 4.0}),
    _row("--ngrok", refusal=NGROK),
    _row("--ngrok-authtoken", "t", refusal=NGROK, environ={"NGROK": "true"}),
    _row("--ngrok-edge", "e", refusal=NGROK, environ={"NGROK": "true"}),
    _row("--tokenizer-config-path", "t.json", server={"tokenizer_config_path": "t.json"}),
    _row("--disable-grammar-support", server={"disable_grammar_support": True}),
    # TGI has no twin for it, and ENV by itself means too many things.
    _row("--env", launcher={"env": True}, variable="BACKPLANE_ENV"),
    _row("--max-client-batch-size", "7", server={"max_client_batch_size": 7}),
    _row("--lora-adapters", "a/b,n=/x", launcher={"lora_adapters": ("a/b", "n=/x")}),
    _row("--usage-stats", "off", notice="nothing is ever sent"),
    _row("--payload-limit", "77", server={"payload_limit": 77}),
    _row(
        "--enable-prefill-logprobs",
        server={"enable_prefill_logprobs": True},
        notice="whenever a request asks for them",
    ),
    _row("--graceful-termination-timeout", "7", server={"graceful_timeout_s": 7.0}),
]
