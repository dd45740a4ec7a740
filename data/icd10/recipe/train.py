"""Trains the LoRA adapter on train.jsonl and writes it for llama.cpp; about 10 minutes on one free core, more on a busy one.

    python data/icd10/recipe/train.py --model SmolLM2-135M-Instruct.Q4_1.gguf --out adapter.gguf [--steps N]

Seeded and on one thread, in bf16, which was the fastest way on a processor. The number of steps is fixed, not the time, so
that a slow machine trains the same adapter as a fast one, up to the rounding of its processor.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from convert import write_adapter
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
)

SEED, BATCH, RATE, RANK, ALPHA, CODE_WEIGHT = 135, 8, 6e-4, 16, 32, 3.0
KEPT = 0.95  # of the running mean of the weights, at each step
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STUDY = Path(__file__).parents[1]
Row = tuple[list[int], list[int], int]  # prompt, answer, how many tokens of the answer are its code


def load(gguf: Path):
    """The base model, dequantised to bf16 and without its quantisation, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    dropped = {"quantization_config", "transformers_version", "_name_or_path", "dtype"}
    config = LlamaConfig(
        **{name: value for name, value in packed.config.to_dict().items() if name not in dropped}
    )
    plain = LlamaForCausalLM(config).to(torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.config._attn_implementation = (
        "eager"  # on a processor faster than the fused kernel in bf16
    )
    return plain.to(torch.bfloat16), tokenizer


def read_rows(path: Path, tokenizer) -> list[Row]:
    """Each row as the server's chat template writes it."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        *asked, answer = json.loads(line)["messages"]
        turns = "".join(
            f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in asked
        )
        code = answer["content"].split(":")[0]
        texts = (f"{turns}<|im_start|>assistant\n", f"{answer['content']}<|im_end|>", code)
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows.append((ids[0], ids[1], len(ids[2])))
    return rows


def common_prefix(rows: list[Row]) -> list[int]:
    """The tokens every prompt starts with: the instructions, run through the model once a batch and not once a row."""
    first, n = rows[0][0], 0
    while all(n < len(prompt) - 1 and prompt[n] == first[n] for prompt, _, _ in rows):
        n += 1
    return first[:n]


def loss_of(core, head, prefix: list[int], rows: list[Row]) -> torch.Tensor:
    """Cross-entropy over the answers' tokens; those of the code, where the choice is made, weigh more."""
    n_prefix, n_rows = len(prefix), len(rows)
    length = max(len(prompt) + len(answer) for prompt, answer, _ in rows) - n_prefix
    ids, mask = (
        torch.full((n_rows, length), 2),
        torch.zeros(n_rows, n_prefix + length, dtype=torch.long),
    )
    places, wanted, weights = [], [], []
    for i, (prompt, answer, n_code) in enumerate(rows):
        own = (prompt + answer)[n_prefix:]
        ids[i, : len(own)], mask[i, : n_prefix + len(own)] = torch.tensor(own), 1
        places += [(i, len(prompt) - n_prefix + j - 1) for j in range(len(answer))]
        wanted += answer
        weights += [CODE_WEIGHT if j < n_code else 1.0 for j in range(len(answer))]
    cache = DynamicCache()
    core(input_ids=torch.tensor([prefix]), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(n_rows)
    hidden = core(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
    at, position = zip(*places, strict=True)
    scores = head(hidden[list(at), list(position)]).float()
    losses, weight = (
        torch.nn.functional.cross_entropy(scores, torch.tensor(wanted), reduction="none"),
        torch.tensor(weights),
    )
    return (losses * weight).sum() / weight.sum()


def batches(rows: list[Row], n: int, dice: random.Random):
    """`n` batches of rows of like length, epoch after epoch."""
    order: list[int] = []
    waiting: list[list[Row]] = []
    for _ in range(n):
        if not waiting:
            while len(order) < BATCH * 8:
                order += dice.sample(range(len(rows)), len(rows))
            chunk, order = (
                sorted(order[: BATCH * 8], key=lambda i: len(rows[i][0]) + len(rows[i][1])),
                order[BATCH * 8 :],
            )
            waiting = [[rows[i] for i in chunk[k : k + BATCH]] for k in range(0, len(chunk), BATCH)]
            dice.shuffle(waiting)
        yield waiting.pop()


@torch.no_grad()
def right_share(core, head, rows: list[Row]) -> float:
    """Share of rows whose whole code is the likeliest continuation: what the tuning is after, cheaply measured."""
    right = 0
    for prompt, answer, n_code in rows:
        hidden = core(input_ids=torch.tensor([prompt + answer[:n_code]])).last_hidden_state[0]
        guessed = head(hidden[len(prompt) - 1 : len(prompt) + n_code - 1]).argmax(-1).tolist()
        right += guessed == answer[:n_code]
    return right / len(rows)


def train(model, train_rows: list[Row], val_rows: list[Row], steps: int, save) -> None:
    """AdamW at a constant rate; what is kept is the running mean of the weights, which takes the place of a falling rate."""
    core, head = model.base_model.model.model, model.base_model.model.lm_head
    weights = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    prefix, means = common_prefix(train_rows), [one.detach().clone() for one in weights]
    began, running = time.monotonic(), None
    for step, batch in enumerate(batches(train_rows, steps, random.Random(SEED)), start=1):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, step / 10)
        loss = loss_of(core, head, prefix, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        kept = min(KEPT, step / (step + 10))
        for mean, one in zip(means, weights, strict=True):
            mean.lerp_(one.detach(), 1 - kept)
        if step % 20 == 0 or step == steps:
            print(
                f"step {step} of {steps}, {time.monotonic() - began:.0f} s, loss {running:.3f}",
                flush=True,
            )
            with holding(weights, means):
                save(step)
    with holding(weights, means):
        print(f"right codes in validation: {right_share(core, head, val_rows):.2f}", flush=True)


@contextmanager
def holding(weights: list[torch.Tensor], values: list[torch.Tensor]):
    """Other values in place of the weights, for a while."""
    own = [one.detach().clone() for one in weights]
    for one, value in zip(weights, values, strict=True):
        one.data.copy_(value)
    yield
    for one, value in zip(weights, own, strict=True):
        one.data.copy_(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=STUDY, help="folder with train.jsonl and val.jsonl"
    )
    parser.add_argument("--out", type=Path, default=STUDY / "adapter.gguf")
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, tokenizer = load(asked.model)
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    rows = [read_rows(asked.data / f"{split}.jsonl", tokenizer) for split in ("train", "val")]
    n_tokens = sum(len(prompt) + len(answer) for prompt, answer, _ in rows[0]) / len(rows[0])
    print(f"{len(rows[0])} rows, {n_tokens:.0f} tokens each", flush=True)
    heads = {
        "heads": model.config.num_attention_heads,
        "key_heads": model.config.num_key_value_heads,
    }

    def save(step: int) -> None:
        write_adapter(
            get_peft_model_state_dict(model),
            asked.out.with_suffix(f".{step}.gguf"),
            alpha=ALPHA,
            **heads,
        )

    train(model, *rows, asked.steps, save)
    asked.out.with_suffix(f".{asked.steps}.gguf").replace(asked.out)


if __name__ == "__main__":
    main()
