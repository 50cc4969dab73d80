"""Makes the fixtures of the hidden states: what transformers' last hidden states of each tiny base are, and their means.

Writes fixtures/<architecture>/hidden.safetensors: tokens, offsets (those of full.safetensors), hidden [T, dim] (behind the
final norm) and means [n, dim], one for each sequence. Computed in float64, so the tests' tolerance is our own fp32 error alone.
Usage: python3 make_hidden_fixtures.py (after make_decoder_fixtures.py)
"""
import pathlib

import safetensors.torch
import torch
import transformers

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"

for folder in sorted(path for path in FIXTURES.iterdir() if (path / "full.safetensors").exists()):
    data = safetensors.torch.load_file(folder / "full.safetensors")
    model = transformers.AutoModel.from_pretrained(folder / "base", attn_implementation="eager", dtype=torch.float32).double().eval()
    states = []
    with torch.no_grad():
        for begin, end in zip(data["offsets"][:-1], data["offsets"][1:]):
            states.append(model(input_ids=data["tokens"][begin:end].long()[None]).last_hidden_state[0])
    tensors = dict(tokens=data["tokens"], offsets=data["offsets"], hidden=torch.cat(states).float(),
                   means=torch.stack([state.mean(dim=0) for state in states]).float())
    metadata = dict(torch=torch.__version__, transformers=transformers.__version__)
    safetensors.torch.save_file(tensors, folder / "hidden.safetensors", metadata=metadata)
