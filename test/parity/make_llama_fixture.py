"""Makes the fixtures of the decoder's parity test: a random tiny Llama with grouped-query attention and Llama 3's rotary scaling.

Writes, below fixtures/llama/:
  base/config.json, base/model.safetensors   a Hugging Face directory, fp32
  full.safetensors    tokens, offsets, label_mask, logits at labelled positions, loss, gradients, parameters after one AdamW step
  lora.safetensors    the same for PEFT-LoRA on a vocabulary with six more tokens, with the adapters and rows that it starts from

Everything behind the stored weights is computed in float64, so the test's tolerance is our own fp32 error alone.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0 (recorded in the files' metadata).
Usage: python3 make_llama_fixture.py
"""
import json
import pathlib
import warnings

import peft
import safetensors.torch
import torch
import transformers

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).resolve().parent / "fixtures" / "llama"
VOCABULARY, NEW_TOKENS = 40, 6
LENGTHS = [9, 4, 17]
# A large epsilon: at 1e-8 the first step is lr * sign(gradient), which rounding noise decides where the gradient is tiny.
STEP = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-4)
WEIGHT_DECAY, CLIP_NORM = 0.1, 0.25
RANK, ALPHA, TARGETS = 4, 8, ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
KEPT_AFTER_STEP = ["embed_tokens", "lm_head", "layers.0.self_attn.q_proj", "layers.1.mlp.down_proj", "layers.1.input_layernorm", "lora"]


def make_base():
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=VOCABULARY,
        rms_norm_eps=1e-5, max_position_embeddings=256, tie_word_embeddings=False, attn_implementation="eager",
        rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=64))
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Norms away from one and weights of order 0.2, so that nothing is nearly linear.
            value.copy_(1 + 0.3 * torch.randn_like(value) if "norm" in name else 0.2 * torch.randn_like(value))
    return model


def make_data(vocabulary):
    tokens = torch.randint(0, vocabulary, (sum(LENGTHS),), dtype=torch.int32)
    offsets = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int64)
    mask = (torch.rand(len(tokens)) < 0.6).to(torch.uint8)
    mask[offsets[:-1]] = 0
    mask[offsets[1:] - 1] = 1  # every sequence has a label
    return dict(tokens=tokens, offsets=offsets, label_mask=mask)


def run_step(model, data):
    """Logits at labelled positions, loss, gradients, and the trained parameters after one clipped AdamW step."""
    logits, losses = [], []
    for begin, end in zip(data["offsets"][:-1], data["offsets"][1:]):
        ids, mask = data["tokens"][begin:end].long(), data["label_mask"][begin:end].bool()
        out = model(input_ids=ids[None]).logits[0, :-1][mask[1:]]
        logits.append(out)
        losses.append(torch.nn.functional.cross_entropy(out, ids[1:][mask[1:]], reduction="sum"))
    loss = torch.stack(losses).sum() / int(data["label_mask"].sum())
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.clone() for name, p in trained.items()}
    decays = [p for name, p in trained.items() if "proj" in name]
    others = [p for name, p in trained.items() if "proj" not in name]
    optimizer = torch.optim.AdamW([dict(params=decays, weight_decay=WEIGHT_DECAY), dict(params=others, weight_decay=0.0)], **STEP)
    norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), CLIP_NORM)
    optimizer.step()
    result = dict(logits=torch.cat(logits).detach(), loss=loss.detach().reshape(1), grad_norm=norm.reshape(1))
    result |= {f"gradient/{plain(name)}": g for name, g in gradients.items()}
    result |= {f"after/{plain(name)}": p.detach() for name, p in trained.items() if any(k in name for k in KEPT_AFTER_STEP)}
    return {name: value.float().contiguous() for name, value in result.items()}


def plain(name):
    """PEFT's parameter names as its adapter files spell them."""
    return name.replace(".default", "")


def save(name, tensors):
    metadata = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                    step=json.dumps(dict(STEP, weight_decay=WEIGHT_DECAY, clip_norm=CLIP_NORM)),
                    lora=json.dumps(dict(rank=RANK, alpha=ALPHA, targets=TARGETS)))
    safetensors.torch.save_file(tensors, HERE / name, metadata=metadata)


def main():
    torch.manual_seed(20240229)
    model = make_base()
    model.save_pretrained(HERE / "base")
    (HERE / "base" / "generation_config.json").unlink(missing_ok=True)
    data = make_data(VOCABULARY)
    save("full.safetensors", data | run_step(model.double(), data))

    model = transformers.LlamaForCausalLM.from_pretrained(HERE / "base", attn_implementation="eager")
    model.resize_token_embeddings(VOCABULARY + NEW_TOKENS, mean_resizing=False)
    rows = list(range(VOCABULARY, VOCABULARY + NEW_TOKENS))
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM",
        trainable_token_indices=dict(embed_tokens=rows, lm_head=rows)))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:  # B too: at zero it would hide errors in A
                value.copy_(0.2 * torch.randn_like(value))
    start = {f"before/{plain(n)}": p.detach().clone().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    data = make_data(VOCABULARY + NEW_TOKENS)
    save("lora.safetensors", data | start | run_step(model.double(), data))


if __name__ == "__main__":
    main()
