"""Write a small llama with random weights: a real model for a real engine, of no intelligence.

    python make_model.py FILE [WIDTH [LAYERS]]

Its tokenizer is one token a byte, so a prompt of n bytes has n tokens and a space before them. The
weights come from a fixed seed: the same arguments give the same file, byte for byte.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np

CONTEXT = 8192
HEADS = 4
SEED = 2


def write(path: str, width: int = 64, layers: int = 2) -> None:
    """Write the model as GGUF.

    + path: the file; overwritten
    + width: of the embedding; a multiple of 8, more is slower
    + layers: number of blocks
    """
    # A random model's output is whatever its weights favour: only what can be read is in reach.
    readable = [*range(0x20, 0x7F)]
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256
    feed_forward = width * 2
    random = np.random.default_rng(SEED)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("stackmend lab")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")

    writer.add_tensor("token_embd.weight", weights(len(tokens), width))
    for layer in range(layers):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", np.ones(width, np.float32))
        writer.add_tensor(f"{block}.ffn_norm.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{name}.weight", weights(width, width) / width**0.5)
        writer.add_tensor(f"{block}.ffn_gate.weight", weights(feed_forward, width) / width**0.5)
        writer.add_tensor(f"{block}.ffn_up.weight", weights(feed_forward, width) / width**0.5)
        writer.add_tensor(f"{block}.ffn_down.weight", weights(width, feed_forward) / width**0.5)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    # No bias in a llama: tokens out of reach get a zero row, and the last dimension lifts the rest.
    output = np.zeros((len(tokens), width), np.float32)
    output[[3 + byte for byte in readable]] = weights(len(readable), width)
    writer.add_tensor("output.weight", output)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1], *(int(argument) for argument in sys.argv[2:]))
