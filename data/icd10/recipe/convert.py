"""Writes a LoRA adapter of a llama-like model as a GGUF file that llama.cpp reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def write_adapter(
    tensors: Mapping, path: Path, *, alpha: float, heads: int, key_heads: int
) -> None:
    """Writes peft's tensors under llama.cpp's names, in half precision.

    llama.cpp rotates neighbouring rows of a query or key head, transformers the two halves of it: the rows of those two
    projections are reordered, and of a LoRA pair only B has such rows.
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string(
        "general.name", "SmolLM2-135M-Instruct, tuned to pick ICD-10-CM codes from a shortlist"
    )
    writer.add_string("general.license", "apache-2.0")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(alpha))
    for name in sorted(tensors):
        parts = name.split(".")
        layer, module = (
            parts[parts.index("layers") + 1],
            next(part for part in parts if part in NAMES),
        )
        half = "a" if "lora_A" in parts else "b"
        values = tensors[name].float().numpy()
        if half == "b" and module in {"q_proj", "k_proj"}:
            values = reordered(values, heads if module == "q_proj" else key_heads)
        writer.add_tensor(
            f"blk.{layer}.{NAMES[module]}.weight.lora_{half}",
            np.ascontiguousarray(values, dtype=np.float16),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reordered(values: np.ndarray, heads: int) -> np.ndarray:
    """The two halves of each head's rows, interleaved."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
        .swapaxes(1, 2)
        .reshape(values.shape)
    )
