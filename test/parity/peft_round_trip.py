"""The other side of the PEFT tests: models and adapters made by transformers and peft, exported ones loaded by them.

Each command prints one JSON object. Everything is computed in float32 as users do; logits are compared in relative terms.
Usage: python3 peft_round_trip.py COMMAND ARGUMENTS  (the commands are the functions below)
"""
import json
import os
import pathlib
import re
import sys
import warnings

import peft
import safetensors.torch
import tokenizers
import torch
import transformers

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
NEW_TOKENS, EXAMPLES = 10, 8
RANK, ALPHA, TARGETS = 4, 8, ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]


def randomise(model):
    """Norms away from one and weights of order 0.2, so that nothing is nearly linear."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(1 + 0.3 * torch.randn_like(value) if "norm" in name else 0.2 * torch.randn_like(value))
    return model


def make_base(folder, kind):
    """A random tiny Hugging Face directory with a byte-level tokenizer: llama has a head of its own, qwen2 a tied one."""
    torch.manual_seed(7)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
                 vocab_size=len(vocabulary) + 2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1)
    configs = dict(llama=transformers.LlamaConfig(**shape, tie_word_embeddings=False),
                   qwen2=transformers.Qwen2Config(**shape, tie_word_embeddings=True, use_sliding_window=False))
    model = randomise(transformers.AutoModelForCausalLM.from_config(configs[kind]))
    # As published models are: in bf16.
    model.to(torch.bfloat16).save_pretrained(folder)
    return {}


def load_as_its_readme_says(folder):
    """Runs the Python of the folder's README.md, from where the folder lies, as it tells people to."""
    folder = pathlib.Path(folder)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S).group(1)
    names = {}
    os.chdir(folder.parent)
    exec(code, names)
    return names["model"].eval(), names["tokenizer"]


def compare_logits(folder, prompts, logits):
    """Logits of an exported folder against those in the file `logits`; and what its tokenizer says."""
    prompts, logits = os.path.abspath(prompts), os.path.abspath(logits)
    model, tokenizer = load_as_its_readme_says(folder)
    data, ours = safetensors.torch.load_file(prompts), safetensors.torch.load_file(logits)["logits"]
    worst, largest, same_top = 0.0, 0.0, 0
    with torch.no_grad():
        for begin, end in zip(data["offsets"][:-1].tolist(), data["offsets"][1:].tolist()):
            theirs = model(input_ids=data["tokens"][begin:end].long()[None]).logits[0].float()
            worst = max(worst, (theirs - ours[begin:end]).abs().max().item())
            largest = max(largest, theirs.abs().max().item())
            same_top += int((theirs.argmax(-1) == ours[begin:end].argmax(-1)).sum())
    item = tokenizer.convert_tokens_to_ids("<a_0>")
    return dict(relativeDifference=worst / largest, tokens=len(ours), sameTop=same_top, vocabulary=theirs.shape[-1],
                dtype=str(next(model.parameters()).dtype), firstItemToken=item, encoded=tokenizer("a b<a_0><a_1>")["input_ids"],
                encodedText=tokenizer("a b", add_special_tokens=False)["input_ids"])


def make_adapter(base, out, form):
    """A random adapter of one of PEFT's forms, examples for it, and PyTorch's loss on them."""
    torch.manual_seed(11)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    old = model.config.vocab_size
    size = old + NEW_TOKENS
    model.resize_token_embeddings(size, mean_resizing=False)
    new = list(range(old, size))
    tied = model.config.tie_word_embeddings
    options = dict(tokens=dict(trainable_token_indices=new if tied else dict(embed_tokens=new, lm_head=new)),
                   tables=dict(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=tied),
                   resized=dict())[form]
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(0.2 * torch.randn_like(value))
    model.save_pretrained(out)
    lengths = [3 + i for i in range(EXAMPLES)]
    tokens = torch.randint(0, size, (sum(lengths),), dtype=torch.int32)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int64)
    mask = torch.ones(len(tokens), dtype=torch.uint8)
    mask[offsets[:-1]] = 0
    mask[offsets[:-1] + 1] = 0
    safetensors.torch.save_file(dict(tokens=tokens, offsets=offsets, label_mask=mask), f"{out}/train_examples")
    safetensors.torch.save_file(dict(sizes=torch.tensor([size, old], dtype=torch.int64)), f"{out}/vocabulary")
    losses = []
    model.eval()
    with torch.no_grad():
        for begin, end in zip(offsets[:-1], offsets[1:]):
            ids, labelled = tokens[begin:end].long(), mask[begin:end].bool()
            logits = model(input_ids=ids[None]).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits[labelled[1:]], ids[1:][labelled[1:]], reduction="sum"))
    held = safetensors.torch.load_file(f"{out}/adapter_model.safetensors")
    return dict(loss=torch.stack(losses).sum().item() / int(mask.sum()), tables=sorted(k for k in held if "lora" not in k),
                rank=RANK, alpha=ALPHA, targets=TARGETS)


if __name__ == "__main__":
    commands = dict(make_base=make_base, compare_logits=compare_logits, make_adapter=make_adapter)
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
