"Random models of many families, so small that brute force costs nothing: what their attention may be is what matters."
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

WIDTH = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "initializer_range": 0.3}
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 1024, "initializer_range": 0.3}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_n_groups": 1, "mamba_d_state": 8}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

FAMILIES = {  # name: (model type, what it is made of)
    "Llama": ("llama", WIDTH),
    "Llama 3": ("llama", {**WIDTH, "rope_parameters": LLAMA3}),
    "Qwen 2": ("qwen2", {**WIDTH, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
    "Qwen 3": ("qwen3", WIDTH),
    "Qwen 3 MoE": ("qwen3_moe", {**WIDTH, **EXPERTS}),
    "GPT-2": ("gpt2", OLD),
    "OPT": ("opt", {**WIDTH, "ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}),
    "Gemma": ("gemma", WIDTH),
    "Gemma 2": ("gemma2", {**WIDTH, "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "Gemma 3": ("gemma3_text", {**WIDTH, "sliding_window": 16, "query_pre_attn_scalar": 8, "num_hidden_layers": 6}),
    "Mistral": ("mistral", {**WIDTH, "sliding_window": 32}),
    "Mixtral": ("mixtral", {**WIDTH, "sliding_window": 32, "num_local_experts": 4}),
    "Phi 3": ("phi3", {**WIDTH, "sliding_window": 32, "pad_token_id": 0}),
    "gpt-oss": ("gpt_oss", {**WIDTH, "sliding_window": 16, "num_local_experts": 4}),
    "SmolLM 3": ("smollm3", {**WIDTH, "use_sliding_window": False, "pad_token_id": 0}),
    "OLMo 2": ("olmo2", WIDTH),
    "OLMo 3": ("olmo3", {**WIDTH, "sliding_window": 16}),
    "Command R7B": ("cohere2", {**WIDTH, "sliding_window": 16}),
    "Granite": ("granite", WIDTH),
    "GPT-NeoX": ("gpt_neox", WIDTH),
    "StableLM": ("stablelm", WIDTH),
    "StarCoder 2": ("starcoder2", {**WIDTH, "sliding_window": 16}),
    "Phi": ("phi", {**WIDTH, "num_key_value_heads": 4}),
    "Llama 4": (
        "llama4_text",
        {**WIDTH, "attention_chunk_size": 16, "intermediate_size_mlp": 48, "num_local_experts": 2, "moe_layers": [1]},
    ),
    "Qwen3-Next": ("qwen3_next", {**WIDTH, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 16}),
    "LFM2": ("lfm2", {**WIDTH, "layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3, "block_ff_dim": 48}),
    "Falcon-H1": ("falcon_h1", {**WIDTH, **MAMBA, "num_hidden_layers": 2}),
    "Granite hybrid": (
        "granitemoehybrid",
        {
            **WIDTH,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
            "layer_types": ["mamba", "attention"] * 2,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "shared_intermediate_size": 48,
        },
    ),
    "Mamba": ("mamba", {**SMALL, "state_size": 8}),
    "Mamba 2": ("mamba2", {**SMALL, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16}),
    "RWKV": ("rwkv", {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 3, "context_length": 1024}),
    "BLOOM": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}),
    "RecurrentGemma": (
        "recurrent_gemma",
        {**WIDTH, "lru_width": 32, "attention_window_size": 16, "num_hidden_layers": 3},
    ),
    "Falcon (alibi)": ("falcon", {**SMALL, "num_attention_heads": 4, "alibi": True}),
    "MPT": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 1024}),
    "Jamba": (
        "jamba",
        {**WIDTH, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8},
    ),
}


def random_model(family, vocab_size, seed=0):
    "A model of a family, in eval mode and fp32."
    import torch

    torch.manual_seed(seed)
    kind, made_of = FAMILIES[family]
    config = CONFIG_MAPPING[kind](vocab_size=vocab_size, **made_of)
    config.eos_token_id = config.bos_token_id = None
    config.pad_token_id = 0
    return AutoModelForCausalLM.from_config(config).eval()
