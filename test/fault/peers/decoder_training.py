"""The work of both peers: a small Llama-shaped decoder trained data-parallel, with checkpoints as their documentation advises.

1. Everything that can be fixed is: seeds, the order of the data, one thread a process, deterministic algorithms, the rows of a rank.
2. A checkpoint holds model, optimizer and step; it is written under a temporary name, synced and renamed. The newest one is loaded.
3. What happens is told as one JSON line an event, in one append, to a file that every process of the run shares: a launcher's own
   way of forwarding output would be part of the times otherwise.
"""

import hashlib
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 2024
# The scratch decoder of deploy/examples/demo.yaml: shape, vocabulary (512 of text, 4 levels of 64 codes), optimizer.
SHAPE = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=352,
             vocab_size=768, tie_word_embeddings=True, rms_norm_eps=1e-5)
CORPUS_SEQUENCES = 2048


class Events:
    """`folder/events.ndjson`, appended to by every process."""

    def __init__(self, folder, rank):
        self.rank = rank
        self.file = os.open(Path(folder) / "events.ndjson", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def tell(self, kind, **more):
        line = dict(event=kind, rank=self.rank, pid=os.getpid(), time=time.time(), **more)
        os.write(self.file, (json.dumps(line) + "\n").encode())


def write_checkpoint(folder, state):
    """Answers the file; a reader sees all of it or nothing."""
    path = Path(folder) / f"step-{state['step']:08d}.pt"
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def newest_checkpoint(folder):
    """The newest checkpoint's state, or None."""
    paths = sorted(Path(folder).glob("step-*.pt"))
    return torch.load(paths[-1], weights_only=True) if paths else None


def weights_digest(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def train(settings, events, resumed, save):
    """Trains to `settings["steps"]` in the process group that the launcher made.

    `resumed`: the state of a checkpoint, or None; `save(state)`: called by every rank at a checkpoint, with None by all but rank 0.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    batch, length = settings["batch"], settings["length"]
    if batch % world != 0:
        raise ValueError(f"expected a batch that {world} ranks can share evenly, got {batch} sequences; change --batch")
    corpus = torch.randint(SHAPE["vocab_size"], (CORPUS_SEQUENCES, length), generator=torch.Generator().manual_seed(SEED))
    order = torch.randperm(CORPUS_SEQUENCES, generator=torch.Generator().manual_seed(SEED + 1))
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, max_position_embeddings=length))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05)
    step = 0
    if resumed is not None:
        model.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
        step = resumed["step"]
    events.tell("started", step=step, world=world)
    share = batch // world
    try:
        while step < settings["steps"]:
            first = step * batch + rank * share
            rows = corpus[order[torch.arange(first, first + share) % CORPUS_SEQUENCES]]
            optimizer.zero_grad()
            parallel(input_ids=rows, labels=rows).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            events.tell("step", step=step)
            if step % settings["checkpoint_steps"] == 0:
                state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
                save(state if rank == 0 else None)
    except RuntimeError as error:
        # What the collective throws when a peer is gone: the first that a survivor knows.
        events.tell("peer_lost", message=str(error)[:200])
        raise
    events.tell("finished", step=step, digest=weights_digest(model))
