"""What users would run instead, on the same work as the native benchmarks: faiss, PyTorch, PEFT, transformers.

One section a call, one JSON line a measurement, so that `native/bench/run.mjs` can alternate ours and the peer's.
Needs (measured with): torch 2.15, transformers 5.23, peft 0.21, faiss-cpu 1.15, numpy. Weights and inputs are random.
Usage: python3 peers_cpu.py {kmeans|rq|full|lora|answers|qwen|beam} [--threads N] [--compiled] [--bf16]
"""

import argparse
import json
import random
import resource
import time

import numpy as np

SCRATCH = dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8, intermediate_size=688,
               vocab_size=2048)
SMALL = dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, intermediate_size=1408,
             vocab_size=8192)
QWEN = dict(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864,
            vocab_size=151936, tie_word_embeddings=True)
# As in training_case.h, by section.
TRAINING = {
    "full": dict(work="full training step, scratch", shape=SCRATCH, lora=False, lengths=[128] * 64, answer=0),
    "lora": dict(work="LoRA step, small", shape=SMALL, lora=True, lengths=[256] * 8, answer=0),
    "answers": dict(work="LoRA step, small, answers only, uneven lengths", shape=SMALL, lora=True,
                    lengths=[256, 20, 180, 33, 120, 50, 90, 70], answer=5),
    "qwen": dict(work="LoRA step, qwen0.5b", shape=QWEN, lora=True, lengths=[256] * 4, answer=0, repeats=2),
}
ROWS = [(200_000, 64), (50_000, 768)]


def seconds_of(body, warm, repeats):
    """Sorted wall seconds of `body`, after warm-up calls."""
    for _ in range(warm):
        body()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        body()
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def report(work, unit, values, **more):
    print(json.dumps(dict(work=work, unit=unit, best=values[0], median=values[len(values) // 2], **more)), flush=True)


def kmeans(threads):
    import faiss

    faiss.omp_set_num_threads(threads)
    for n, d in ROWS:
        rows = np.random.default_rng(1).standard_normal((n, d), dtype=np.float32)
        objective = []

        def train():
            model = faiss.Kmeans(d, 256, niter=20, seed=1, max_points_per_centroid=10**9, min_points_per_centroid=1)
            model.train(rows)
            objective.append(float(model.obj[-1]))

        report(f"kmeans {n} x {d}", "s", seconds_of(train, 0, 3), objective=objective[-1])


def rq(threads):
    import faiss

    faiss.omp_set_num_threads(threads)
    for n, d in ROWS:
        rows = np.random.default_rng(1).standard_normal((n, d), dtype=np.float32)
        for beam, suffix in [(1, ""), (5, ", beam 5")]:
            quantizer = faiss.ResidualQuantizer(d, 4, 8)
            quantizer.max_beam_size = beam
            quantizer.train_type = faiss.ResidualQuantizer.Train_default
            quantizer.train(rows[:20_000])
            seconds = seconds_of(lambda: quantizer.compute_codes(rows), 0, 3)
            head = rows[:10_000]
            error = float(((quantizer.decode(quantizer.compute_codes(head)) - head) ** 2).sum(1).mean())
            report(f"residual encode {n} x {d}{suffix}", "rows/s", [n / s for s in seconds], error=error)


def decoder(threads, shape, bf16=False):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if bf16 else torch.float32)
    try:
        return torch, LlamaForCausalLM(LlamaConfig(max_position_embeddings=1024, attn_implementation="sdpa", **shape))
    finally:
        torch.set_default_dtype(torch.float32)


def training_step(threads, case, compiled, bf16):
    """One optimizer step of the case, all sequences padded to the longest of the batch."""
    torch, model = decoder(threads, case["shape"], bf16)
    model.train()
    if case["lora"]:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), autocast_adapter_dtype=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    run = torch.compile(model) if compiled else model
    lengths = case["lengths"]
    tokens = torch.randint(0, case["shape"]["vocab_size"], (len(lengths), max(lengths)))
    labels, mask = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        first = length - case["answer"] if case["answer"] else 0
        labels[row, first:length] = tokens[row, first:length]
    inputs = dict(input_ids=tokens, labels=labels, use_cache=False)
    if min(lengths) < max(lengths):
        inputs["attention_mask"] = mask

    def step():
        run(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = seconds_of(step, 2 if compiled else 1, case.get("repeats", 3))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    peer = ("PEFT" if case["lora"] else "PyTorch") + (" compiled" if compiled else " eager")
    work = case["work"] + (", bf16" if bf16 else "")
    report(work, "tok/s", [sum(lengths) / s for s in seconds], peer=peer, peak_mb=peak_mb)


def beam(threads):
    torch, model = decoder(threads, SCRATCH)
    model.eval()
    first_item = SCRATCH["vocab_size"] - 1024
    draw, trie = random.Random(1), {}
    for _ in range(12_101):
        node = trie
        for level in range(4):
            node = node.setdefault(first_item + 256 * level + draw.randrange(256), {})
    prompt, users = 64, 16

    def allowed(_, ids):
        node = trie
        for token in ids[prompt:].tolist():
            node = node.get(token, {})
        return list(node) or [0]

    tokens = torch.randint(0, first_item, (users, prompt))

    def decode():
        with torch.no_grad():
            model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), num_beams=20, num_return_sequences=20,
                           max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0,
                           prefix_allowed_tokens_fn=allowed)

    report("constrained beam, scratch", "users/s", [users / s for s in seconds_of(decode, 1, 2)])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("section", choices=["kmeans", "rq", "beam", *TRAINING])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--compiled", action="store_true", help="training steps through torch.compile")
    arguments.add_argument("--bf16", action="store_true", help="training steps of a bf16 model")
    parsed = arguments.parse_args()
    if parsed.section in TRAINING:
        training_step(parsed.threads, TRAINING[parsed.section], parsed.compiled, parsed.bf16)
    else:
        globals()[parsed.section](parsed.threads)
