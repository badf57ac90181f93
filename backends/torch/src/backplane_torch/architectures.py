"""Which architectures are known, and on which path each runs. Names only; import-light.

A model that is not listed is tried: whether its attention can be paged is found by running it.
"""

from typing import Final

# Each is held to transformers' own generation by the model tests, of which docs/models.md is made.
PAGED: Final = frozenset(
    {
        *("Cohere2ForCausalLM", "CohereForCausalLM", "DbrxForCausalLM"),
        *("DeepseekV3ForCausalLM", "Exaone4ForCausalLM", "Gemma2ForCausalLM"),
        *("Gemma3ForCausalLM", "GemmaForCausalLM", "Glm4ForCausalLM"),
        *("GPT2LMHeadModel", "GPTBigCodeForCausalLM", "GPTNeoXForCausalLM"),
        *("GptOssForCausalLM", "GraniteForCausalLM", "GraniteMoeForCausalLM"),
        *("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"),
        *("NemotronForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM"),
        *("OlmoeForCausalLM", "OlmoForCausalLM", "OPTForCausalLM"),
        *("PersimmonForCausalLM", "Phi3ForCausalLM", "PhiForCausalLM"),
        *("PhimoeForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM"),
        *("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SmolLM3ForCausalLM"),
        *("StableLmForCausalLM", "Starcoder2ForCausalLM"),
    }
)
OWN_CACHE: Final = frozenset(
    {
        *("BloomForCausalLM", "CodeGenForCausalLM", "FalconForCausalLM"),
        *("FalconMambaForCausalLM", "GPTJForCausalLM", "GPTNeoForCausalLM"),
        *("JambaForCausalLM", "Mamba2ForCausalLM", "MambaForCausalLM"),
        *("MptForCausalLM", "MT5ForConditionalGeneration", "T5ForConditionalGeneration"),
        "XGLMForCausalLM",
    }
)
# No installed class computes these, whatever their repositories' code once did.
UNSUPPORTED: Final = {
    "BaichuanForCausalLM": "transformers has no class for it, its repository's code was written "
    "for transformers 4, and of its sizes one has rotary positions, the other ALiBi",
}
UNSUPPORTED["BaiChuanForCausalLM"] = UNSUPPORTED["BaichuanForCausalLM"]
