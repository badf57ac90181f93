"""What settings say against each other, refused before anything starts. TGI's rules and ours."""

from backplane_launcher.adapter_names import parse_adapters
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.settings.replaced import refuse
from backplane_launcher.usage import UsageError


def check_together(settings: LaunchSettings) -> None:
    """Refuse settings that cannot all be meant.

    TGI's rule that a whole prompt must fit into `--max-batch-prefill-tokens` is not among these:
    prompts are computed in chunks, as they are in TGI where it drops the rule.

    Raises:
        UsageError: two contradict each other, or one is known and not here.
    """
    refuse(settings)
    _check_limits(settings)
    parse_adapters(settings.lora_adapters)
    if any(not key.strip() for key in settings.api_key):
        raise UsageError(
            "--api-key is empty, which would keep nobody out",
            remedy="give it a key, or leave it out to let everybody in",
        )
    if settings.sharded == "true" and settings.num_shard == 1:
        raise UsageError(
            "--sharded true and --num-shard 1 contradict each other",
            remedy="leave out --sharded, or raise --num-shard",
        )
    if settings.dtype and settings.quantize and not settings.quantize.startswith("bitsandbytes"):
        raise UsageError(
            f"--dtype {settings.dtype} and --quantize {settings.quantize} both decide the number "
            "format",
            remedy="leave out one of them",
        )
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        missing = "--tls-key-file" if settings.tls_key_file is None else "--tls-cert-file"
        raise UsageError("HTTPS takes a certificate and its key", remedy=f"give {missing} too")


def _check_limits(settings: LaunchSettings) -> None:
    longest, whole = settings.max_input_tokens, settings.max_total_tokens
    if longest is not None and whole is not None and longest >= whole:
        raise UsageError(
            f"--max-input-tokens {longest} leaves no room for an answer within "
            f"--max-total-tokens {whole}",
            remedy="make --max-total-tokens the larger",
        )
    everything = settings.max_batch_total_tokens
    if everything is None:
        return
    if whole is not None and whole > everything:
        raise UsageError(
            f"--max-total-tokens {whole} is more than --max-batch-total-tokens {everything}, so "
            "the longest request would never fit",
            remedy="make --max-batch-total-tokens the larger",
        )
    prefill = settings.max_batch_prefill_tokens
    if prefill is not None and prefill > everything:
        raise UsageError(
            f"--max-batch-prefill-tokens {prefill} is more than --max-batch-total-tokens "
            f"{everything}, so no step could ever be so large",
            remedy="make --max-batch-total-tokens the larger",
        )
