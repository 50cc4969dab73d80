"""Makes the fixture of the op cases (native/cases): the tiny cases' inputs, and what PyTorch makes of them in float64.

Inputs and parameters come from the list itself: `bench_ops --inputs` writes them. Here is only what each op means: gradients by autograd,
clustering by numpy with faiss as a second opinion. So an op has one definition here whatever its number of cases.
Writes fixtures/ops.safetensors: `<case>: <tensor>` (inputs) and `<case>: expected <tensor>`; double results as two floats, value and remainder.
Made with Python 3.11, torch 2.15.0, numpy 2.4.6, faiss-cpu 1.15.1, safetensors 0.8.0 (recorded in the file's metadata).
Usage: python3 make_op_fixtures.py [build folder, default build/native]
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import faiss
import numpy as np
import safetensors
import safetensors.numpy
import torch
import torch.nn.functional as F

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
OPS = {}


def op(function):
    OPS[function.__name__] = function
    return function


def gradients(loss, **inputs):
    """d loss / d input, by name; inputs without influence have gradient zero."""
    values = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(inputs.items(), values)}


def trained(x):
    return x.detach().clone().requires_grad_()


# ---- layers: t holds a case's tensors in float64 (indices in int64), p its parameters ------------------------------------------
@op
def embedding_forward(t, p):
    return dict(y=F.embedding(t["tokens"], t["table"]))


@op
def embedding_backward(t, p):
    table = trained(t["table"])
    grad = gradients((F.embedding(t["tokens"], table) * t["dy"]).sum(), table=table)["table"]
    return dict(dtable=t["dtable"] + grad[int(p["first_row"]):])


def rms(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


@op
def rmsnorm_forward(t, p):
    x = t["x"] + t["delta"] if "delta" in t else t["x"]
    out = dict(y=rms(x, t["weight"], p["eps"]), inverse_rms=(x.square().mean(-1) + p["eps"]).rsqrt())
    return out | dict(sum=x) if "delta" in t else out


@op
def rmsnorm_backward(t, p):
    x, weight = trained(t["x"]), trained(t["weight"])
    grad = gradients((rms(x, weight, p["eps"]) * t["dy"]).sum(), dx=x, dweight=weight)
    return {name: t[name] + g for name, g in grad.items() if name in t}


def heads_of(x, p):
    """The heads that are the first columns of a wider matrix, [T, heads, D], and the columns behind them."""
    width = int(p["heads"] * p["head_dim"])
    return x[:, :width].unflatten(1, (int(p["heads"]), int(p["head_dim"]))), x[:, width:]


@op
def head_norm_forward(t, p):
    x, rest = heads_of(t["x"], p)
    return dict(x=torch.cat([rms(x, t["weight"], p["eps"]).flatten(1), rest], 1), raw=x.flatten(1),
                inverse_rms=(x.square().mean(-1) + p["eps"]).rsqrt())


@op
def head_norm_backward(t, p):
    raw, weight = trained(t["raw"]), trained(t["weight"])
    dy, rest = heads_of(t["dx"], p)
    grad = gradients((rms(heads_of(raw, p)[0], weight, p["eps"]) * dy).sum(), dx=raw, dweight=weight)
    return dict(dx=torch.cat([grad["dx"], rest], 1), dweight=t["dweight"] + grad["dweight"])


def unit_rows(x, length):
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm > 1e-12, x / norm.clamp_min(1e-12), torch.zeros_like(x)) * length, inverse_or_zero(norm[:, 0])


@op
def unit_rows_forward(t, p):
    y, inverse_length = unit_rows(t["x"], p["length"])
    return dict(y=y, inverse_length=inverse_length)


@op
def unit_rows_backward(t, p):
    x = trained(t["x"])
    return gradients((unit_rows(x, p["length"])[0] * t["dy"]).sum(), dx=x)


@op
def rope(t, p):
    x, rest = heads_of(t["x"], p)
    half = x.shape[-1] // 2
    angle = t["positions"].double()[:, None, None] * p["theta"] ** (-2 * torch.arange(half, dtype=torch.float64) / x.shape[-1])
    turned = torch.view_as_complex(torch.stack([x[..., :half], x[..., half:]], -1))
    turned = turned * torch.polar(torch.ones_like(angle), -angle if p["inverse"] else angle)
    return dict(x=torch.cat([torch.cat([turned.real, turned.imag], -1).flatten(1), rest], 1))


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


@op
def swiglu_forward(t, p):
    return dict(act=swiglu(t["gate_up"]))


@op
def swiglu_backward(t, p):
    gate_up = trained(t["gate_up"])
    return gradients((swiglu(gate_up) * t["dact"]).sum(), dgate_up=gate_up)


# ---- attention -------------------------------------------------------------------------------------------------------------------
def attention(qkv, t, p):
    heads, kv_heads, head_dim, window = (int(p[name]) for name in ("heads", "kv_heads", "head_dim", "window"))
    q, k, v = (x.unflatten(1, (-1, head_dim)).transpose(0, 1) for x in qkv.split([heads * head_dim, *[kv_heads * head_dim] * 2], 1))
    row = torch.arange(len(qkv))
    sequence = torch.bucketize(row, t["offsets"][1:], right=True)
    seen = (sequence[:, None] == sequence) & (row[:, None] >= row)
    if window > 0:
        seen &= row[:, None] - row < window
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    scores = q @ k.repeat_interleave(heads // kv_heads, 0).transpose(1, 2) / head_dim ** 0.5
    return out.transpose(0, 1).flatten(1), scores.masked_fill(~seen, -torch.inf).logsumexp(-1).T


@op
def attention_forward(t, p):
    out, log_sum_exp = attention(t["qkv"], t, p)
    return dict(out=out, log_sum_exp=log_sum_exp)


@op
def attention_backward(t, p):
    qkv = trained(t["qkv"])
    return gradients((attention(qkv, t, p)[0] * t["dout"]).sum(), dqkv=qkv)


@op
def decode_attention(t, p):
    head_dim, group = int(p["head_dim"]), int(p["heads"] // p["kv_heads"])
    out = []
    for row, q in enumerate(t["q"]):
        # This row's keys and values: the prompt's, then of each step those of its ancestor there.
        k, v = (torch.cat([t[f"prompt_{x}"], *(step[ancestor][None] for step, ancestor in zip(t[f"step_{x}"], t["ancestors"][row]))])
                .unflatten(1, (-1, head_dim)).transpose(0, 1).repeat_interleave(group, 0) for x in "kv")
        out.append(F.scaled_dot_product_attention(q.unflatten(0, (-1, head_dim))[:, None], k, v).flatten())
    return dict(out=torch.stack(out))


@op
def choose_columns(t, p):
    return dict(y=t["x"][:, t["chosen"]], log_sum_exp=torch.logsumexp(t["x"], 1))


@op
def log_sum_exp(t, p):
    return dict(y=t["x"].logsumexp(0, keepdim=True))


# ---- linear layers; x and y may have columns beside theirs -------------------------------------------------------------------------
@op
def linear_forward(t, p):
    out, width = t["weight"].shape
    return dict(y=torch.cat([F.linear(t["x"][:, :width], t["weight"]), t["y"][:, out:]], 1))


@op
def linear_backward(t, p):
    out, width = t["weight"].shape
    x, weight = trained(t["x"]), trained(t["weight"])
    grad = gradients((F.linear(x[:, :width], weight) * t["dy"][:, :out]).sum(), dx=x, dweight=weight)
    dx = t["dx"] + grad["dx"] if p["accumulate_dx"] else torch.cat([grad["dx"][:, :width], t["dx"][:, width:]], 1)
    return dict(dx=dx) | (dict(dweight=t["dweight"] + grad["dweight"]) if "dweight" in t else {})


def lora(x, a, b, p):
    xa = F.linear(x[:, :a.shape[1]], a)
    return xa, p["scale"] * F.linear(xa, b)


@op
def lora_forward(t, p):
    xa, y = lora(t["x"], t["a"], t["b"], p)
    return dict(xa=xa, y=t["y"] + F.pad(y, (0, t["y"].shape[1] - y.shape[1])))


@op
def lora_backward(t, p):
    x, a, b = trained(t["x"]), trained(t["a"]), trained(t["b"])
    y = lora(x, a, b, p)[1]
    grad = gradients((y * t["dy"][:, :y.shape[1]]).sum(), dx=x, da=a, db=b)
    return {name: t[name] + g for name, g in grad.items()}


@op
def lora_gradient(t, p):
    x, dy = t["x"][:, :t["da"].shape[1]], t["dy"][:, :t["db"].shape[0]]
    return dict(da=t["da"] + t["dxa"].T @ x, db=t["db"] + p["scale"] * dy.T @ t["xa"])


@op
def add_bias(t, p):
    return dict(y=t["y"] + t["bias"])


@op
def bias_backward(t, p):
    bias = trained(t["bias"])
    grad = gradients(((torch.zeros_like(t["dy"]) + bias) * t["dy"]).sum(), dbias=bias)
    return dict(dbias=t["dbias"] + grad["dbias"])


def bf16(x):
    return x.bfloat16().double()


@op
def bf16_linear_forward(t, p):
    x, out = bf16(t["x"]), {}
    y = F.linear(x, bf16(t["weight"]))
    for i in range(int(p["adapters"])):
        b, column = bf16(p["scale"] * t[f"b{i}"]), int(p[f"column{i}"])
        out[f"xa{i}"] = F.linear(x, bf16(t[f"a{i}"]))
        y[:, column:column + len(b)] += F.linear(bf16(out[f"xa{i}"]), b)
    return out | dict(y=y)


@op
def bf16_linear_backward(t, p):
    dy, x, out, dxa = bf16(t["dy"]), bf16(t["x"]), {}, []
    dx = dy @ bf16(t["weight"])
    for i in range(int(p["adapters"])):
        b, column = bf16(p["scale"] * t[f"b{i}"]), int(p[f"column{i}"])
        part = dy[:, column:column + len(b)]
        dxa.append(part @ b)
        dx += bf16(dxa[-1]) @ bf16(t[f"a{i}"])
        out[f"da{i}"] = t[f"da{i}"] + dxa[-1].T @ x
        out[f"db{i}"] = t[f"db{i}"] + p["scale"] * part.T @ t[f"xa{i}"]
    if dxa:
        out["dxa"] = torch.stack(dxa)
    if "dweight" in t:
        first = int(p["trained_first"])
        out["dweight"] = t["dweight"] + dy[:, first:first + len(t["dweight"])].T @ x
    return out | dict(dx=dx)


# ---- around the layers ---------------------------------------------------------------------------------------------------------------
@op
def cross_entropy(t, p):
    logits = trained(t["logits"])
    losses = F.cross_entropy(logits, t["targets"], reduction="none")
    return dict(logits=gradients(p["scale"] * losses.sum(), logits=logits)["logits"], losses=losses)


@op
def gather_rows(t, p):
    return dict(to=t["from"][t["index"]])


@op
def scatter_rows(t, p):
    return dict(to=t["to"].index_copy(0, t["index"], t["from"]))


@op
def copy_rows(t, p):
    to, dim, kept = t["to"].clone(), int(p["dim"]), t["to_row"] >= 0
    to[t["to_row"][kept], :dim] = t["from"][kept, :dim]
    return dict(to=to)


@op
def add_rows(t, p):
    return dict(to=t["to"] + torch.where(t["left_out"][:, None] == 0, t["from"], 0.0))


def philox_words(p, count):
    """Philox 4x32-10: `count` words of the stream, counters (index, stream, 0, site)."""
    index = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = [index, np.full_like(index, int(p["stream"])), np.zeros_like(index), np.full_like(index, int(p["site"]))]
    low, keys = np.uint64(0xFFFFFFFF), [int(p["seed"]), 0]
    for _ in range(10):
        first, second = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [second >> np.uint64(32) ^ counter[1] ^ np.uint64(keys[0]), second & low,
                   first >> np.uint64(32) ^ counter[3] ^ np.uint64(keys[1]), first & low]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(counter, 1).ravel()[:count]


@op
def dropout(t, p):
    kept = torch.from_numpy(philox_words(p, len(t["x"])) >= p["probability"] * 2.0 ** 32)
    return dict(x=torch.where(kept, t["x"] / (1 - p["probability"]), 0.0))


@op
def sum_squares(t, p):
    return dict(sum=t["x"].square().sum().reshape(1))


@op
def adamw(t, p):
    parameter = trained(t["parameter"])
    optimizer = torch.optim.AdamW([parameter], lr=p["learning_rate"], betas=(p["beta1"], p["beta2"]), eps=p["epsilon"],
                                  weight_decay=p["weight_decay"])
    state = dict(step=torch.tensor(p["step"] - 1), exp_avg=t["first_moment"].clone(), exp_avg_sq=t["second_moment"].clone())
    optimizer.state[parameter] = state
    parameter.grad = p["gradient_scale"] * t["gradient"]
    optimizer.step()
    return dict(parameter=parameter.detach(), first_moment=state["exp_avg"], second_moment=state["exp_avg_sq"])


# ---- clustering ------------------------------------------------------------------------------------------------------------------------
def nearest(rows, centroids):
    distance = ((rows[:, None] - centroids) ** 2).sum(-1)
    codes = distance.argmin(1)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(np.ascontiguousarray(centroids, dtype=np.float32))
    assert (index.search(np.ascontiguousarray(rows, dtype=np.float32), 1)[1][:, 0] == codes).all(), "faiss disagrees with numpy"
    return codes, distance[np.arange(len(rows)), codes]


@op
def assign_rows(t, p):
    codes, distance = nearest(t["rows"].numpy(), t["centroids"].numpy())
    return dict(assignment=codes, squared_distance=distance)


@op
def lloyd_step(t, p):
    rows, centroids = t["rows"].numpy(), t["centroids"].numpy()
    codes, distance = nearest(rows, centroids)
    assert len(set(codes)) == len(centroids), "no cluster may be empty here: re-seeding has its own test"
    return dict(centroids=np.stack([rows[codes == j].mean(0) for j in range(len(centroids))]), objective=distance.sum().reshape(1))


@op
def residual_encode(t, p):
    codes, distances = [], []
    for row in t["rows"].numpy():
        sums = [((), row)]  # codes so far, and what they leave
        for level in t["centroids"].numpy():
            grown = [(path + (code,), left - entry) for path, left in sums for code, entry in enumerate(level)]
            sums = sorted(grown, key=lambda one: (one[1] ** 2).sum())[:int(p["beam"])]
        codes.append(sums[0][0])
        distances.append((sums[0][1] ** 2).sum())
    return dict(codes=np.array(codes), squared_distance=np.array(distances))


@op
def residual_decode(t, p):
    return dict(rows=sum(level[codes] for level, codes in zip(t["centroids"], t["codes"].T)))


# ---- DCCF: dense, as the paper's equations have it -----------------------------------------------------------------------------------------
def adjacency(t, p):
    users, nodes = int(p["users"]), int(p["users"] + p["items"])
    a = torch.zeros(nodes, nodes, dtype=torch.float64)
    a[t["edge_users"], users + t["edge_items"]] = 1
    return a + a.T


def inverse_or_zero(x):
    return torch.where(x > 0, 1 / x.clamp(min=1e-300), 0.0)


@op
def spread(t, p):
    a = adjacency(t, p)
    root = inverse_or_zero(a.sum(1).sqrt())
    y = root[:, None] * a * root @ t["x"]
    return dict(y=t["y"] + y if "y" in t else y)


@op
def inverse_norms(t, p):
    return dict(result=1 / t["x"].norm(dim=1))


def masked_view(x, e, a):
    mask = (F.cosine_similarity(x[:, None], x, dim=-1) + 1) / 2 * a
    inverse_sum = inverse_or_zero(mask.sum(1))
    return inverse_sum[:, None] * mask @ e, inverse_sum


@op
def masked_forward(t, p):
    out, a = {}, adjacency(t, p)
    for name in "zr":
        out[f"h_{name}"], out[f"inverse_sum_{name}"] = masked_view(t[name], t["e"], a)
    return out


@op
def masked_backward(t, p):
    a = adjacency(t, p)
    e, z, r = trained(t["e"]), trained(t["z"]), trained(t["r"])
    loss = (masked_view(z, e, a)[0] * t["dh_z"]).sum() + (masked_view(r, e, a)[0] * t["dh_r"]).sum()
    return {name: t[name] + g for name, g in gradients(loss, de=e, dz=z, dr=r).items()}


def intents(e, prototypes):
    return (e @ prototypes).softmax(-1) @ prototypes.T


@op
def intents_forward(t, p):
    return dict(r=intents(t["e"], t["prototypes"]))


@op
def intents_backward(t, p):
    e, prototypes = trained(t["e"]), trained(t["prototypes"])
    grad = gradients((intents(e, prototypes) * t["dr"]).sum(), de=e, dprototypes=prototypes)
    return {name: t[name] + g for name, g in grad.items()}


@op
def rank_loss(t, p):
    final, embedding = trained(t["final"]), trained(t["embedding"])
    u, i, j = (t[name] for name in ("users", "positives", "negatives"))
    rank = F.softplus((final[u] * final[j]).sum(-1) - (final[u] * final[i]).sum(-1)).mean()
    decay = p["weight_decay"] * sum(embedding[rows].square().sum() for rows in (u, i, j))
    grad = gradients(rank + decay, dfinal=final, dembedding=embedding)
    return {name: t[name] + g for name, g in grad.items()} | dict(losses=torch.stack([rank, decay]))


@op
def contrast_loss(t, p):
    anchor, view = trained(t["anchor"]), trained(t["view"])
    scores = F.normalize(anchor[t["nodes"]]) @ F.normalize(view[t["nodes"]]).T / p["temperature"]
    loss = F.cross_entropy(scores, torch.arange(len(scores)))
    grad = gradients(p["scale"] * loss, danchor=anchor, dview=view)
    return {name: t[name] + g for name, g in grad.items()} | dict(loss=loss.reshape(1))


def stored(x, double):
    x = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if x.dtype.kind == "i":
        return x.astype(np.int32)
    value = x.astype(np.float32)
    return np.stack([value, (x - value).astype(np.float32)]) if double else np.ascontiguousarray(value)


def main():
    build = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "build" / "native"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "inputs.safetensors"
        subprocess.run([build / "bench_ops", "--inputs", path], check=True)
        inputs = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            cases = json.loads(file.metadata()["cases"])
    tensors = dict(inputs)
    for name, case in cases.items():
        given = {key.removeprefix(f"{name}: "): x for key, x in inputs.items() if key.startswith(f"{name}: ")}
        given = {key: torch.from_numpy(x.astype(np.int64 if x.dtype.kind == "i" else np.float64)) for key, x in given.items()}
        expected = OPS[case["op"]](given, case["parameters"])
        tensors |= {f"{name}: expected {key}": stored(x, key in case["doubles"]) for key, x in expected.items()}
    unused = set(OPS) - {case["op"] for case in cases.values()}
    assert not unused, f"no case is of {sorted(unused)}: remove them here"
    metadata = dict(cases=json.dumps(cases), torch=torch.__version__.split("+")[0], numpy=np.__version__, faiss=faiss.__version__,
                    safetensors=safetensors.__version__)
    safetensors.numpy.save_file(tensors, REPOSITORY / "test" / "parity" / "fixtures" / "ops.safetensors", metadata)


if __name__ == "__main__":
    main()
