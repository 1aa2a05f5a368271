"""Tiny models of many families, and the chat templates and tokenizers that come with them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from routedk.programs.prompting.layout import instruction
from tests.adapters.conftest import make_tokenizer

EOS = "<|endoftext|>"
_WINDOW = 7
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_SLIDING = ["sliding_attention", "full_attention"]
_MIXED = {"sliding_window": _WINDOW, "layer_types": [*_SLIDING, *_SLIDING], "head_dim": 8}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_MOE = {**_EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
# Of each family what differs from the shape above, by the name of its config.
FAMILIES: Mapping[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": _WINDOW},
    "Ministral": _MIXED,
    "Mixtral": {**_EXPERTS, "sliding_window": _WINDOW},
    "Qwen2": {"use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 1},
    "Qwen2Moe": _MOE,
    "Qwen3": {"head_dim": 8},
    "Qwen3Moe": {**_MOE, "head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {**_MIXED, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "Gemma3Text": {**_MIXED, "query_pre_attn_scalar": 8},
    "Granite": {"logits_scaling": 3.0, "embedding_multiplier": 5.0, "residual_multiplier": 0.5},
    "Cohere": {"logit_scale": 0.3, "use_qk_norm": True},
    "Cohere2": {**_MIXED, "logit_scale": 0.3},
    "Phi3": {"sliding_window": _WINDOW},
    "Glm4": {"head_dim": 8},
    "Olmo2": {},
    "Olmo3": {"sliding_window": _WINDOW, "layer_types": _MIXED["layer_types"]},
    "GptOss": {**_MIXED, **_EXPERTS},
    "Exaone4": {"sliding_window": _WINDOW, "sliding_window_pattern": 2},
    "StableLm": {"use_parallel_residual": True},
    "SmolLM3": {"no_rope_layer_interval": 2},
    "Starcoder2": {"sliding_window": _WINDOW},
    "GPTNeoX": {},
    "Phi": {},
}
# What trees cannot be read with, and why.
REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "Lfm2": ({"layer_types": ["conv", "full_attention"] * 2}, "layers of conv"),
    "Mamba": ({"state_size": 4}, "layers of linear_attention"),
    "Jamba": ({**_EXPERTS, "use_mamba_kernels": False}, "layers of linear_attention"),
    "RecurrentGemma": ({}, "layers of linear_attention"),
    "Llama4Text": (
        {**_EXPERTS, "attention_chunk_size": 8, "head_dim": 8, "intermediate_size_mlp": 16},
        "has no decoder layers under language_model.layers",
    ),
    "Falcon": ({}, "has no decoder layers under transformer.layers"),
    "GPT2": ({}, "has no decoder layers under transformer.layers"),
}


def tiny(family: str, vocab_size: int, **changes: Any) -> Any:
    """A random model of a family, in evaluation mode."""
    shape = {**_SHAPE, "vocab_size": vocab_size, **changes}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**shape)
    # Experts of a mixture are multiplied together in lower precisions only.
    mixed = {"experts_implementation": "eager"} if "num_experts_per_tok" in changes else {}
    model = AutoModelForCausalLM.from_config(config, **mixed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.1 if parameter.ndim < 2 else 0.3
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval().requires_grad_(False)


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A tokenizer like that of Llama 2, which puts a space before what it is given."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    words = "brewing tea desk setup rain hike usb hub cup strainer kettle coat Thought none user"
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        max_token_length=8,
        show_progress=False,
    )
    # No token goes on from one word into the next.
    tokenizer.train_from_iterator([*instruction().split(), *words.split()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=LLAMA2,
    )


LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set content = system + message['content'] if loop.first else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
GLM4 = (
    "[gMASK]<sop>{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# It shows no system turn, without a word about it.
SILENT = GLM4.replace("in messages", "in messages if message['role'] != 'system'")


def _trl(name: str) -> str:
    folder = Path(trl.__file__).parent / "chat_templates"
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")


# Of each template: its text, the token that ends an answer, and what stands before an answer.
TEMPLATES: Mapping[str, tuple[Callable[[], str], str, str]] = {
    "Llama 2": (lambda: LLAMA2, EOS, "[/INST]"),
    "Mistral": (lambda: MISTRAL, EOS, "[/INST]"),
    "GLM-4": (lambda: GLM4, "<|user|>", "<|assistant|>\n"),
    "silent": (lambda: SILENT, "<|user|>", "<|assistant|>\n"),
    "Gemma": (lambda: _trl("gemma"), "<end_of_turn>", "<start_of_turn>model\n"),
    "Gemma 3": (lambda: _trl("gemma3"), "<end_of_turn>", "<start_of_turn>model\n"),
    "Phi-3": (lambda: _trl("phi3"), "<|end|>", "<|assistant|>\n"),
    "Llama 3": (lambda: _trl("llama3"), "<|eot_id|>", "assistant<|end_header_id|>\n\n"),
    "Llama 3.2": (lambda: _trl("llama3_2"), "<|eot_id|>", "assistant<|end_header_id|>\n\n"),
    "Qwen 2.5": (lambda: _trl("qwen2_5"), "<|im_end|>", "<|im_start|>assistant\n"),
    "Qwen 3": (lambda: _trl("qwen3"), "<|im_end|>", "assistant\n<think>\n\n</think>\n\n"),
    "Command R": (lambda: _trl("cohere"), "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    "gpt-oss": (lambda: _trl("gptoss"), "<|return|>", "<|channel|>final<|message|>"),
}
_ENDS = [end for _, end, _ in TEMPLATES.values() if end != EOS]


def marked_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with this template; markers of turns are special tokens without a name."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.eos_token = EOS
    tokenizer.add_tokens([AddedToken(marker, special=True) for marker in [*_ENDS, "<|system|>"]])
    return tokenizer
