"""SmolLM2 as Hugging Face's libraries read it: what peers with builders of their own start from."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from smollm2.checkpoint import SmolLM2


def write_hugging_face(model: SmolLM2, folder: Path) -> Path:
    """config.json, float32 weights, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    written = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_size, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions, "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta, "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    model.tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    weights = {name: tensor.contiguous() for name, tensor in model.weights.items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder
