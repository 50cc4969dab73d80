"""Makes the fixtures of the decoder's parity tests: a tiny random model of each architecture, and what PyTorch and PEFT make of it.

Writes, below fixtures/<architecture>/:
  base/               a Hugging Face directory: fp32 in one file, in several shards (mistral), in bf16 (qwen2)
  full.safetensors    tokens, offsets, label_mask, logits at labelled positions, loss, gradients, parameters after one AdamW step
  lora.safetensors    the same for PEFT-LoRA on a vocabulary with six more tokens, with the adapters and rows that it starts from;
                      then from that same start the loss of each of 20 steps, and the adapters and rows that they end in
  beam.safetensors    prompts, items as token tuples, and the sequences and scores of a trie-constrained beam search

Everything behind the stored weights is computed in float64, so the tests' tolerance is our own fp32 error alone.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0 (recorded in the files' metadata).
Usage: python3 make_decoder_fixtures.py
"""
import copy
import json
import pathlib
import shutil
import warnings

import peft
import safetensors.torch
import torch
import transformers

warnings.filterwarnings("ignore")
FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
VOCABULARY, NEW_TOKENS = 40, 6
LENGTHS = [9, 4, 17]
# A large epsilon: at 1e-8 the first step is lr * sign(gradient), which rounding noise decides where the gradient is tiny.
STEP = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-4)
WEIGHT_DECAY, CLIP_NORM = 0.1, 0.25
RANK, ALPHA, TARGETS = 4, 8, ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
KEPT_AFTER_STEP = ["embed_tokens", "lm_head", "layers.0.self_attn.q_proj", "layers.1.mlp.down_proj", "layers.1.input_layernorm", "_norm", "bias", "lora"]
LORA_STEPS = 20
BEAMS, ITEMS, LEVELS, PROMPTS = 8, 30, 3, [7, 2, 15]

SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=VOCABULARY,
             rms_norm_eps=1e-5, max_position_embeddings=256, attn_implementation="eager")
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)
CONFIGS = {
    "llama": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE),
    "llama_bias": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True, attention_bias=True,
                                           rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=2.0)),
    # A window shorter than the sequences, and heads narrower than the model.
    "mistral": transformers.MistralConfig(**SHAPE, tie_word_embeddings=False, sliding_window=6, head_dim=6),
    "qwen2": transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True, use_sliding_window=False, sliding_window=4),
    "qwen3": transformers.Qwen3Config(**SHAPE, tie_word_embeddings=True, head_dim=10),
}


def make_base(name, folder):
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        for parameter_name, value in model.named_parameters():
            # Norms away from one and weights of order 0.2, so that nothing is nearly linear.
            value.copy_(1 + 0.3 * torch.randn_like(value) if "norm" in parameter_name else 0.2 * torch.randn_like(value))
    if name == "qwen2":
        model = model.to(torch.bfloat16)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="40KB" if name == "mistral" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)


def load_base(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def make_data(vocabulary):
    tokens = torch.randint(0, vocabulary, (sum(LENGTHS),), dtype=torch.int32)
    offsets = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int64)
    mask = (torch.rand(len(tokens)) < 0.6).to(torch.uint8)
    mask[offsets[:-1]] = 0
    mask[offsets[1:] - 1] = 1  # every sequence has a label
    return dict(tokens=tokens, offsets=offsets, label_mask=mask)


def loss_of(model, data):
    """Logits at labelled positions and the mean loss there."""
    logits, losses = [], []
    for begin, end in zip(data["offsets"][:-1], data["offsets"][1:]):
        ids, mask = data["tokens"][begin:end].long(), data["label_mask"][begin:end].bool()
        out = model(input_ids=ids[None]).logits[0, :-1][mask[1:]]
        logits.append(out)
        losses.append(torch.nn.functional.cross_entropy(out, ids[1:][mask[1:]], reduction="sum"))
    return torch.cat(logits), torch.stack(losses).sum() / int(data["label_mask"].sum())


def trained_of(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def optimizer_of(model):
    trained = trained_of(model)
    decays = [p for name, p in trained.items() if "proj" in name and "bias" not in name]
    others = [p for name, p in trained.items() if "proj" not in name or "bias" in name]
    return torch.optim.AdamW([dict(params=decays, weight_decay=WEIGHT_DECAY), dict(params=others, weight_decay=0.0)], **STEP)


def clip(model):
    return torch.nn.utils.clip_grad_norm_(list(trained_of(model).values()), CLIP_NORM)


def stored(tensors):
    return {name: value.detach().float().clone().contiguous() for name, value in tensors.items()}


def run_step(model, data):
    """Logits at labelled positions, loss, gradients, and the trained parameters after one clipped AdamW step."""
    optimizer = optimizer_of(model)
    logits, loss = loss_of(model, data)
    loss.backward()
    result = dict(logits=logits, loss=loss.reshape(1))
    result |= {f"gradient/{plain(name)}": p.grad.clone() for name, p in trained_of(model).items()}
    result |= dict(grad_norm=clip(model).reshape(1))
    optimizer.step()
    result |= {f"after/{plain(name)}": p for name, p in trained_of(model).items() if any(k in name for k in KEPT_AFTER_STEP)}
    return stored(result)


def run_steps(model, data):
    """The loss before each of the steps, and the trained parameters behind the last."""
    optimizer, losses = optimizer_of(model), []
    for _ in range(LORA_STEPS):
        optimizer.zero_grad()
        _, loss = loss_of(model, data)
        loss.backward()
        clip(model)
        optimizer.step()
        losses.append(loss.detach())
    return stored(dict(losses=torch.stack(losses)) | {f"final/{plain(name)}": p for name, p in trained_of(model).items()})


def run_beam(model):
    """Sequences and scores (sums of log-probabilities over the whole vocabulary) of a beam over the items' trie."""
    first = VOCABULARY - 3 * 8  # eight tokens a level
    items = sorted({tuple(first + 8 * level + int(torch.randint(0, 8, ())) for level in range(LEVELS)) for _ in range(ITEMS)})
    sequences, scores, prompts = [], [], []
    for length in PROMPTS:
        prompt = torch.randint(0, VOCABULARY, (length,))

        def allowed(_, ids):
            prefix = tuple(ids[length:].tolist())
            return sorted({item[len(prefix)] for item in items if item[: len(prefix)] == prefix}) or [0]

        out = model.generate(
            input_ids=prompt[None], attention_mask=torch.ones(1, length, dtype=torch.long), num_beams=BEAMS, num_return_sequences=BEAMS,
            max_new_tokens=LEVELS, min_new_tokens=LEVELS, do_sample=False, length_penalty=0.0, eos_token_id=None, pad_token_id=0,
            prefix_allowed_tokens_fn=allowed, return_dict_in_generate=True, output_scores=True)
        prompts.append(prompt)
        sequences.append(torch.tensor([items.index(tuple(row)) for row in out.sequences[:, length:].tolist()]))
        scores.append(out.sequences_scores)
    return dict(prompts=torch.cat(prompts).int(), offsets=torch.tensor([0, *torch.tensor(PROMPTS).cumsum(0).tolist()]),
                items=torch.tensor(items, dtype=torch.int32), sequences=torch.stack(sequences).int(),
                scores=torch.stack(scores).float())


def plain(name):
    """PEFT's parameter names as its adapter files spell them."""
    return name.replace(".default", "")


def save(path, tensors):
    metadata = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                    step=json.dumps(dict(STEP, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM)),
                    lora=json.dumps(dict(rank=RANK, alpha=ALPHA, targets=TARGETS)))
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def with_adapters(folder):
    model = load_base(folder)
    model.resize_token_embeddings(VOCABULARY + NEW_TOKENS, mean_resizing=False)
    rows = list(range(VOCABULARY, VOCABULARY + NEW_TOKENS))
    tables = rows if model.config.tie_word_embeddings else dict(embed_tokens=rows, lm_head=rows)
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM", trainable_token_indices=tables))
    with torch.no_grad():
        for value in trained_of(model).values():  # B too: at zero it would hide errors in A
            value.copy_(0.2 * torch.randn_like(value))
    return model


def make(name):
    torch.manual_seed(20240229)
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    make_base(name, folder / "base")
    model = load_base(folder / "base").double()
    data = make_data(VOCABULARY)
    save(folder / "beam.safetensors", run_beam(model.eval()))
    save(folder / "full.safetensors", data | run_step(model, data))

    model = with_adapters(folder / "base")
    start = {f"before/{plain(n)}": p for n, p in trained_of(model).items()}
    data = make_data(VOCABULARY + NEW_TOKENS)
    model, again = model.double(), copy.deepcopy(model).double()
    save(folder / "lora.safetensors", data | stored(start) | run_step(model, data) | run_steps(again, data))


if __name__ == "__main__":
    for architecture in CONFIGS:
        make(architecture)
