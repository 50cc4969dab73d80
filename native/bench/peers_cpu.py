"""What users would run instead, on the same work as the native benchmarks: faiss, PyTorch, transformers.

One section a call, one JSON line a measurement, so that `native/bench/run.mjs` can alternate ours and the peer's.
Needs (measured with): torch 2.15, transformers 5.23, faiss-cpu 1.15, numpy. Weights and inputs are random.
Usage: python3 peers_cpu.py {kmeans|rq|full|beam} [--threads N]
"""

import argparse
import json
import random
import time

import numpy as np

SCRATCH = dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8, intermediate_size=688,
               vocab_size=2048, max_position_embeddings=1024, attn_implementation="sdpa")
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
        quantizer = faiss.ResidualQuantizer(d, 4, 8)
        quantizer.max_beam_size = 1
        quantizer.train_type = faiss.ResidualQuantizer.Train_default
        quantizer.train(rows[:20_000])
        seconds = seconds_of(lambda: quantizer.compute_codes(rows), 0, 3)
        head = rows[:10_000]
        error = float(((quantizer.decode(quantizer.compute_codes(head)) - head) ** 2).sum(1).mean())
        report(f"residual encode {n} x {d}", "rows/s", [n / s for s in seconds], error=error)


def scratch_decoder(threads):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch, LlamaForCausalLM(LlamaConfig(**SCRATCH))


def full(threads):
    torch, model = scratch_decoder(threads)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, SCRATCH["vocab_size"], (64, 128))

    def step():
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    report("full training step, scratch", "tok/s", [tokens.numel() / s for s in seconds_of(step, 1, 3)])


def beam(threads):
    torch, model = scratch_decoder(threads)
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
    arguments.add_argument("section", choices=["kmeans", "rq", "full", "beam"])
    arguments.add_argument("--threads", type=int, default=2)
    parsed = arguments.parse_args()
    globals()[parsed.section](parsed.threads)
