#!/usr/bin/env python3
"""Writes the golden files: inputs, parameters, outputs and gradients of the models in reference.py.

    python3 tests/golden/make_golden.py [NAME ...]        needs torch and numpy; the tests need neither

Parameters and inputs are float32 values; everything is computed from them in double and stored as float32 (float64
where a name ends in .f64). Prefixes of the names: in/ param/ out/ grad/ (d loss / d parameter) grad_in/ (d loss / d
input). README.md lists the files. Same versions, same bytes.
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch

import reference as ref

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "uint8": "U8"}


# ---- files --------------------------------------------------------------------------------------------------
class Golden:
    """Collects the tensors of one file; detaches, narrows and packs them on the way in."""

    def __init__(self, name, **metadata):
        self.name, self.tensors, self.names = name, {}, set()
        self.metadata = {"torch": torch.__version__, "numpy": np.__version__,
                         **{k: json.dumps(v) if not isinstance(v, str) else v for k, v in metadata.items()}}

    def add(self, name, value):
        a = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
        kind = "float64" if name.endswith(".f64") else {"f": "float32", "i": "int32", "b": "uint8"}[a.dtype.kind]
        self.tensors[name] = np.ascontiguousarray(a.astype(kind)).reshape(a.shape)

    def add_all(self, prefix, tensors):
        for name, value in tensors.items():
            self.add(prefix + name, value)

    def write(self):
        order = sorted(self.tensors, key=lambda k: (-self.tensors[k].itemsize, k))
        header, offset = {"__metadata__": self.metadata}, 0
        for k in order:
            a = self.tensors[k]
            header[k] = {"dtype": DTYPES[a.dtype.name], "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
            offset += a.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(HERE / f"{self.name}.safetensors", "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for k in order:
                f.write(self.tensors[k].tobytes())


class Params:
    """Makes float32-valued double tensors from one seeded generator."""

    def __init__(self, seed):
        self.rng, self.p = np.random.default_rng(seed), {}

    def normal(self, *shape, scale=1.0, mean=0.0):
        a = (mean + scale * self.rng.standard_normal(shape)).astype(np.float32)
        return torch.tensor(a, dtype=torch.float64)

    def put(self, name, *shape, scale=1.0, mean=0.0):
        self.p[name] = self.normal(*shape, scale=scale, mean=mean).requires_grad_()

    def linear(self, name, fan_in, out, bias=True):
        self.put(name + ".weight", out, fan_in, scale=fan_in ** -0.5)
        if bias:
            self.put(name + ".bias", out, scale=0.1)

    def norm(self, name, d):
        self.put(name + ".weight", d, scale=0.2, mean=1.0)
        self.put(name + ".bias", d, scale=0.1)

    def attn(self, name, d, bias=True):
        self.linear(name + ".qkv", d, 3 * d, bias)
        self.linear(name + ".out", d, d)

    def normformer(self, name, d, factor=1):
        for n in ("norm1", "norm2", "mlp.norm"):
            self.norm(f"{name}.{n}", d)
        self.attn(name + ".attn", d)
        self.linear(name + ".mlp.fc1", d, factor * d)
        self.linear(name + ".mlp.fc2", factor * d, d)

    def vq(self, codes, dim=4):
        self.put("tokenizer.vq.codebook", codes, dim)
        self.put("tokenizer.vq.affine.scale", 1, dim, scale=0.05)
        self.put("tokenizer.vq.affine.bias", 1, dim, scale=0.05)

    def tokenizer(self, d, layers, codes, factor=1):
        self.linear("tokenizer.in", 3, d)
        for side in ("enc", "dec"):
            for i in range(layers):
                self.normformer(f"tokenizer.{side}.{i}", d, factor)
        self.linear("tokenizer.to_latent", d, 4)
        self.vq(codes)
        self.linear("tokenizer.from_latent", 4, d)
        self.linear("tokenizer.out", d, 3)

    def gpt_block(self, name, d):
        self.attn(name + ".attn", d, bias=False)
        self.p.pop(name + ".attn.qkv.bias", None)
        self.linear(name + ".ff.fc1", d, 4 * d)
        self.linear(name + ".ff.fc2", 4 * d, d)
        self.norm(name + ".norm1", d)
        self.norm(name + ".norm2", d)

    def preln_block(self, name, d, factor=4):
        self.norm(name + ".norm1", d)
        self.attn(name + ".attn", d)
        self.put(name + ".gate1", d, scale=0.2, mean=1.0)
        self.norm(name + ".norm2", d)
        self.linear(name + ".ff.fc1", d, factor * d)
        self.linear(name + ".ff.fc2", factor * d, d)
        self.put(name + ".gate2", d, scale=0.2, mean=1.0)

    def part_block(self, name, d, heads):
        for n in ("norm1", "post_norm", "norm2"):
            self.norm(f"{name}.{n}", d)
        self.attn(name + ".attn", d)
        self.put(name + ".c_attn", heads, scale=0.2, mean=1.0)
        self.linear(name + ".fc1", d, 4 * d)
        self.norm(name + ".fc_norm", 4 * d)
        self.linear(name + ".fc2", 4 * d, d)
        self.put(name + ".w_resid", d, scale=0.2, mean=1.0)

    def tau_head(self, name, d, heads, p, c, outputs):
        for i in range(p):
            self.part_block(f"{name}.block.{i}", d, heads)
        for i in range(c):
            self.part_block(f"{name}.cls_block.{i}", d, heads)
        self.put(name + ".cls", d, scale=0.5)
        self.norm(name + ".norm", d)
        self.linear(name + ".fc", d, outputs)

    def part(self, d, heads, p, c, inputs, outputs, pair):
        self.norm("part.embed.bn", inputs)
        for i, (a, b) in enumerate(((inputs, d), (d, 2 * d), (2 * d, d))):
            self.norm(f"part.embed.{i}.norm", a)
            self.linear(f"part.embed.{i}.fc", a, b)
        self.norm("part.pair.bn", 4)
        for i, (a, b) in enumerate(((4, pair), (pair, pair), (pair, pair), (pair, heads))):
            self.linear(f"part.pair.{i}.conv", a, b)
            self.norm(f"part.pair.{i}.bn", b)
        self.tau_head("part", d, heads, p, c, outputs)


def ragged(lengths, width=None):
    """Mask (B, L) and cu_seqlens; the padded side is `width` long, more than any jet, so that padding is seen."""
    lengths = np.array(lengths)
    width = width or int(lengths.max()) + 3
    mask = torch.tensor(np.arange(width)[None] < lengths[:, None])
    return mask, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def grads(loss, tensors):
    out = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, retain_graph=True)
    return {k: torch.zeros_like(t) if g is None else g for (k, t), g in zip(tensors.items(), out)}


def record(g, m, loss, inputs, mask=None):
    """Loss, all gradients of parameters and, packed where a mask is given, of inputs."""
    g.add("out/loss.f64", loss)
    g.add_all("param/", m.p)
    g.add_all("grad/", grads(loss, m.p))
    for name, value in grads(loss, inputs).items():
        g.add("grad_in/" + name, value if mask is None else value[mask])


FILES = {}


def golden(function):
    FILES[function.__name__] = function
    return function


# ---- quantizer, tokenizer -----------------------------------------------------------------------------------
@golden
def vq():
    m = Params(31)
    m.vq(61)
    z = m.normal(257, 4).requires_grad_()
    up = m.normal(257, 4)
    g = Golden("vq", beta=0.9, alpha=10, item="3, 4", loss="sum(grad_out * out) + alpha * vq_loss")
    g.add("in/z", z)
    g.add("in/grad_out", up)
    g.add_all("param/", m.p)
    for nu in (0.0, 1.0):
        out, codes, loss, d2 = ref.vector_quant(m.p, z, 0.9, nu)
        total = (up * out).sum() + 10 * loss
        tag = f"nu{int(nu)}/"
        g.add_all(f"grad/{tag}", grads(total, m.p))
        g.add(f"grad_in/{tag}z", grads(total, {"z": z})["z"])
    g.add("out/codes", codes)
    g.add("out/quantized", out)
    g.add("out/effective_codebook", ref.effective_codebook(m.p))
    g.add("out/vq_loss.f64", loss)
    g.add("out/gap.f64", torch.sort(d2, -1).values[:, 1] - d2.min(-1).values)
    g.write()


def normformer(name, d, heads, lengths, init=False, causal=False, seed=21):
    m = Params(seed)
    m.normformer("block", d)
    if init:  # identity: LN1 weight and the last Linear are zero, so LN2 sees zero variance
        for k in ("norm1.weight", "norm1.bias", "norm2.bias", "attn.qkv.bias", "attn.out.bias", "mlp.fc2.weight", "mlp.fc2.bias"):
            m.p["block." + k] = torch.zeros_like(m.p["block." + k]).requires_grad_()
    mask, cu = ragged(lengths)
    x = m.normal(*mask.shape, d).requires_grad_()
    up = m.normal(*mask.shape, d)
    y = ref.normformer_block(m.p, "block", x, mask, heads, causal)
    g = Golden(name, heads=heads, causal=causal, item="2", loss="sum(grad_out * y)")
    g.add("in/cu_seqlens", cu)
    g.add("in/x", x[mask])
    g.add("in/grad_out", up[mask])
    g.add("out/y", y[mask])
    record(g, m, (up * y)[mask].sum(), {"x": x}, mask)
    g.write()


@golden
def normformer_block():
    normformer("normformer_block", 32, 4, [1, 7, 0, 33, 13])
    normformer("normformer_block_causal", 32, 4, [1, 7, 0, 33, 13], causal=True, seed=22)
    normformer("normformer_block_init", 32, 4, [1, 7, 0, 33, 13], init=True, seed=23)
    normformer("normformer_block_full", 128, 8, [5, 17], seed=24)


@golden
def tokenizer():
    for name, lengths, factor, causal in (("tokenizer", [1, 7, 50, 128], 1, False), ("tokenizer_causal", [1, 7, 0, 33], 2, True)):
        m = Params(51)
        m.tokenizer(16, 2, 64, factor)
        mask, cu = ragged(lengths, 128)
        x = (m.normal(*mask.shape, 3) * mask[..., None]).requires_grad_()
        g = Golden(name, heads=4, alpha=10, beta=0.9, nu=1, slots=128, mlp_factor=factor, causal_decoder=causal, item="5")
        g.add("in/cu_seqlens", cu)
        g.add("in/x", x[mask])
        g.add_all("param/", m.p)
        for tag in ("clean", "reference"):
            r = ref.tokenizer(m.p, x, mask, 4, tag == "reference", causal_decoder=causal)
            g.add_all(f"out/{tag}/", {k + ".f64": r[k] for k in ("loss", "loss_reco", "loss_vq")})
            g.add_all(f"grad/{tag}/", grads(r["loss"], m.p))
        for k in ("z", "codes", "y"):
            g.add("out/" + k, r[k][mask])
        g.add("out/pad_code", np.array([int(ref.effective_codebook(m.p).square().sum(-1).argmin())]))
        g.write()


# ---- backbones ----------------------------------------------------------------------------------------------
def gpt(name, d, heads, layers, seed):
    """Clean: mean over real targets. Diluted: mean over all B*slots positions, pads included with id and target 0."""
    codes, slots, lengths = 64, 40, [0, 1, 7, 32, 45]
    m = Params(seed)
    m.put("backbone.embed.token.weight", codes + 2, d)
    for i in range(layers):
        m.gpt_block(f"backbone.block.{i}", d)
    m.linear("head.ntp", d, codes + 2)
    keep = [min(n + 1, slots) for n in lengths]  # inputs [start, codes], cut at the slots: the stop of a long jet is lost
    mask, cu = ragged(keep, slots)
    ids, target = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.int64)
    for j, n in enumerate(lengths):
        tokens = np.concatenate([[0], 1 + m.rng.integers(0, codes, n), [codes + 1]])
        ids[j, :keep[j]], target[j, :keep[j]] = tokens[:-1][:keep[j]], tokens[1:][:keep[j]]
    ids, target = torch.tensor(ids), torch.tensor(target)
    h = ref.gpt_backbone(m.p, ids, mask, heads)
    logits = ref.linear(m.p, "head.ntp", h)
    ce = logits.logsumexp(-1) - logits.gather(-1, target[..., None])[..., 0]
    g = Golden(name, heads=heads, slots=slots, item="7, 8")
    g.add("in/cu_seqlens", cu)
    g.add("in/ids", ids[mask])
    g.add("in/targets", target[mask])
    g.add("out/hidden", h[mask])
    g.add("out/logits", logits[mask])
    g.add_all("param/", m.p)
    for tag, loss in (("clean", ce[mask].mean()), ("diluted", ce.mean())):
        g.add(f"out/{tag}/loss.f64", loss)
        g.add_all(f"grad/{tag}/", grads(loss, m.p))
    g.write()


@golden
def gpt_backbone():
    gpt("gpt_heads_of_8", 32, 4, 2, 71)
    gpt("gpt_heads_of_32", 64, 2, 1, 72)


@golden
def ce_linear():
    m = Params(81)
    t = {"hidden": m.normal(33, 32), "weight": m.normal(257, 32, scale=0.5), "bias": m.normal(257)}
    t = {k: v.requires_grad_() for k, v in t.items()}
    y = torch.tensor(m.rng.integers(0, 257, 33))
    w = m.normal(33).abs()
    logits = t["hidden"] @ t["weight"].T + t["bias"]
    rows = logits.logsumexp(-1) - logits.gather(-1, y[:, None])[:, 0]
    g = Golden("ce_linear", item="8", loss="sum(weights * rows)")
    g.add_all("in/", {**t, "targets": y, "weights": w})
    g.add("out/rows", rows)
    g.add("out/loss.f64", (w * rows).sum())
    g.add_all("grad_in/", grads((w * rows).sum(), t))
    g.write()


@golden
def pretrain():
    d, heads, codes, lengths = 32, 4, 61, [1, 2, 13, 31]
    m = Params(171)
    m.linear("backbone.embed.core", 3, d)
    m.put("backbone.embed.pid.weight", 9, d, scale=0.5)
    m.linear("backbone.embed.ctx", 9, d, bias=False)
    m.put("backbone.registers", 2, d)
    m.put("backbone.start", d)
    for i in range(2):
        m.preln_block(f"backbone.block.{i}", d)
    m.norm("backbone.norm", d)
    for stream in ("ntp", "mpm"):
        m.preln_block(f"head.pretrain.{stream}.block", d, 2)
        m.norm(f"head.pretrain.{stream}.norm", d)
    m.linear("head.pretrain.unembed", d, codes + 2)
    m.norm("head.pretrain.pid_norm", d)
    m.linear("head.pretrain.pid", d, 8)
    m.put("head.pretrain.mask", 32, d)
    mask, cu = ragged(lengths)
    hidden = torch.zeros_like(mask)
    for j, n in enumerate(lengths):
        count = 0 if n < 2 else min(max(1, round(0.4 * n)), n - 1)
        hidden[j, torch.tensor(np.sort(m.rng.permutation(n)[:count]), dtype=torch.long)] = True
    jet = {k: m.normal(*mask.shape, w).requires_grad_() for k, w in (("core", 3), ("core_token", 3), ("ctx", 9))}
    pid, code = m.rng.integers(0, 9, mask.shape), m.rng.integers(0, codes, mask.shape)
    ints = {"pid": torch.tensor(pid), "codes": torch.tensor(code)}
    loss, h, r = ref.ntp_mpm(m.p, {**jet, **ints}, mask, hidden, heads, codes)
    g = Golden("pretrain", heads=heads, registers=2, item="17")
    g.add("in/cu_seqlens", cu)
    g.add("in/masked", np.flatnonzero(hidden[mask].numpy()))  # indices into the packed particles
    g.add_all("in/", {k: v[mask] for k, v in {**jet, **ints}.items()})
    g.add_all("out/", {k + ".f64": v for k, v in loss.items()})
    g.add("out/ntp_hidden", h[torch.cat([torch.ones(len(lengths), 1, dtype=torch.bool), mask], 1)])
    g.add("out/mpm_hidden", r[mask])
    record(g, m, loss["loss"], jet, mask)
    bidir = ref.tessera_backbone(m.p, ref.tessera_embed(m.p, jet["core"], ints["pid"], jet["ctx"], 1.0), mask, heads, False)
    g.add("out/bidir_hidden", bidir[mask])  # the features that downstream heads see: raw inputs, s = 1, nothing masked
    g.write()


# ---- heads, baselines, losses -------------------------------------------------------------------------------
def head(name, m, item, lengths, d, forward, **metadata):
    mask, cu = ragged(lengths)
    x = m.normal(*mask.shape, d).requires_grad_()
    y = forward(x, mask)
    up = m.normal(*y.shape)
    g = Golden(name, item=item, loss="sum(grad_out * y)", **metadata)
    g.add("in/cu_seqlens", cu)
    g.add("in/x", x[mask])
    g.add("in/grad_out", up)
    g.add("out/y", y)
    record(g, m, (up * y).sum(), {"x": x}, mask)
    return g


@golden
def sum_head():
    m = Params(121)
    m.linear("head.sum.fc1", 32, 32)
    m.linear("head.sum.fc2", 32, 2)
    head("sum_head", m, "12", [2, 0, 9, 33], 32, lambda x, k: ref.sum_head(m.p, x, k)).write()


@golden
def class_attention_ref():
    m, name = Params(122), "head.class_attention_ref"
    m.put(name + ".cls", 32)
    for i in range(3):
        m.norm(f"{name}.block.{i}.norm", 32)
        m.attn(f"{name}.block.{i}.attn", 32)
    for fc, out in (("fc1", 32), ("fc2", 32), ("fc3", 2)):
        m.linear(f"{name}.{fc}", 32, out)
    head("class_attention_ref", m, "12", [2, 0, 9, 33], 32, lambda x, k: ref.class_attention_ref(m.p, x, k), heads=2).write()


@golden
def tau_head():
    m = Params(131)
    m.tau_head("head.tau", 32, 4, 1, 2, 6)
    head("tau_head", m, "13", [1, 0, 7, 33], 32, lambda x, k: ref.tau_head(m.p, x, k, 4), heads=4).write()


@golden
def part():
    m, lengths = Params(132), [1, 3, 12, 16]
    m.part(32, 4, 2, 1, 13, 2, 16)
    shape = ragged(lengths)[0].shape
    p3 = m.normal(*shape, 3).detach() * torch.tensor([5.0, 5.0, 8.0]) + torch.tensor([20.0, 0.0, 5.0])
    mass = 0.5 + m.normal(*shape).abs()
    p4 = torch.cat([p3, (p3.square().sum(-1) + mass ** 2).sqrt()[..., None]], -1).float().double()
    stats, kept = {}, {}

    def forward(x, mask):
        kept["mask"] = mask
        y, kept["bias"] = ref.part(m.p, x, p4, mask, 4, stats)
        return y

    g = head("part", m, "13", lengths, 13, forward, heads=4)
    mask = kept["mask"]
    pairs = mask[:, :, None] & mask[:, None, :]
    g.add("in/p4", p4[mask])  # px, py, pz, E
    g.add("out/pair_features", ref.pair_features(p4)[pairs])  # per jet (n, n, 4), jets one after another
    g.add("out/pair_bias", kept["bias"][pairs])  # (n, n, H)
    for name, (mean, var) in stats.items():
        g.add(f"out/{name}.batch_mean", mean)
        g.add(f"out/{name}.batch_var", var)  # unbiased: what enters the running variance
    g.write()


def dense(m, name, widths):
    for i in range(len(widths) - 1):
        m.linear(f"{name}.{i}", widths[i], widths[i + 1])


@golden
def deepsets():
    m = Params(133)
    dense(m, "deepsets.phi", [13, 32, 32, 32, 32])
    dense(m, "deepsets.f", [32, 32, 32, 32, 6])
    head("deepsets", m, "13", [1, 0, 7, 33], 13, lambda x, k: ref.deepsets(m.p, x, k)).write()


@golden
def pfn():
    m = Params(134)
    dense(m, "pfn.phi", [3, 20, 20, 48])
    dense(m, "pfn.f", [48, 20, 20, 20, 2])
    head("pfn", m, "13", [1, 0, 7, 33], 3, lambda x, k: ref.pfn(m.p, x, k)).write()


@golden
def losses():
    m, n = Params(141), 33
    logits = (m.normal(n, 2) * 2).requires_grad_()
    y, w = torch.tensor(m.rng.integers(0, 2, n)), m.normal(n).abs()
    classes = torch.tensor([10.0, 1.0], dtype=torch.float64)
    logp = logits.log_softmax(-1).gather(-1, y[:, None])[:, 0]
    focal = (1 - logp.exp()) ** 2 * classes[y] * -logp
    pred, target = (m.normal(n) * 2).requires_grad_(), m.normal(n)
    delta = (pred - target).abs()
    huber = torch.where(delta < 1, 0.5 * delta ** 2, delta - 0.5)
    g = Golden("losses", item="14", focal="gamma 2, class weights 10, 1; y = 1 is signal", huber="delta 1", reduction="sum(weights * rows) / N")
    g.add_all("in/", {"logits": logits, "classes": y, "weights": w, "prediction": pred, "target": target})
    for name, rows, x in (("focal", focal, logits), ("cross_entropy", -logp, logits), ("huber", huber, pred)):
        g.add(f"out/{name}.rows", rows)
        for tag, loss in (("mean", rows.mean()), ("weighted", (w * rows).sum() / n)):
            g.add(f"out/{name}.{tag}.f64", loss)
            g.add(f"grad_in/{name}.{tag}", grads(loss, {"x": x})["x"])
    g.write()


# ---- optimizer, schedules, metrics, preprocessing -----------------------------------------------------------
@golden
def adamw():
    """20 steps: gradients are given, clipped to a global norm of 5, then AdamW with weight decay 1e-2."""
    m = Params(101)
    start = {"weight": m.normal(17, 9), "bias": m.normal(9), "codebook": m.normal(31, 4)}
    steps = [{k: m.normal(*v.shape) * (0.1 + 0.2 * i) for k, v in start.items()} for i in range(20)]
    steps = [{k: v.float().double() for k, v in s.items()} for s in steps]
    g = Golden("adamw", item="10", lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=1e-2, clip=5, matrices=["weight"])
    g.add_all("in/", start)
    for k in start:
        g.add(f"in/grad.{k}", torch.stack([s[k] for s in steps]))
    for tag, decayed in (("all", set(start)), ("matrices", {"weight"})):
        p = {k: v.clone().requires_grad_() for k, v in start.items()}
        groups = [{"params": [p[k]], "weight_decay": 1e-2 if k in decayed else 0.0} for k in p]
        optimizer, norms = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8), []
        for i, s in enumerate(steps):
            for k in p:
                p[k].grad = s[k].clone()
            norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), 5.0))
            optimizer.step()
            if i in (0, 19):
                g.add_all(f"out/{tag}/step{i + 1}/", p)
        g.add(f"out/{tag}/grad_norm.f64", torch.stack(norms))
    g.write()


@golden
def schedules():
    def one_cycle_cooldown(e):
        if e < 4:
            return 5e-4 + 5e-4 * e / 4
        return 1e-3 - 5e-4 * (e - 4) / 20 if e < 24 else max(5e-4 - 2e-4 * (e - 24) / 50, 3e-4)

    p = torch.nn.Parameter(torch.zeros(1))
    constant, cosine = [], []
    for values, make in ((constant, lambda o: torch.optim.lr_scheduler.ConstantLR(o, total_iters=1)),
                         (cosine, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, eta_min=1e-5))):
        optimizer = torch.optim.AdamW([p], lr=1e-3)
        scheduler = make(optimizer)
        for _ in range(101):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    epochs = [0, 2, 4, 14, 24, 49, 74, 75]
    content = {"torch": torch.__version__, "one_cycle_cooldown": {"epoch": epochs, "lr": [one_cycle_cooldown(e) for e in epochs]},
               "constant_lr": {"base": 1e-3, "epoch": [0, 1, 2], "lr": constant[:3]},
               "cosine": {"base": 1e-3, "end": 1e-5, "steps": 100, "lr": cosine}}
    (HERE / "schedules.json").write_text(json.dumps(content, indent=1) + "\n")


@golden
def metrics():
    rng = np.random.default_rng(161)
    ratio = rng.normal(1.02, 0.1, 999).astype(np.float32).astype(float)
    truth, other = (rng.gamma(3.0, s, 4000).astype(np.float32).astype(float) for s in (10.0, 11.0))
    sig = np.round(rng.normal(0.6, 0.2, 700), 2).astype(np.float32).astype(float)  # rounded: ties within and between
    bkg = np.round(rng.normal(0.4, 0.2, 900), 2).astype(np.float32).astype(float)
    q25, q50, q75, q16, q84 = np.quantile(ratio, [.25, .5, .75, .16, .84])
    auc = (sig[:, None] > bkg[None]).mean() + 0.5 * (sig[:, None] == bkg[None]).mean()
    out = {"response": q50, "resolution": (q75 - q25) / q50, "resolution_68": (q84 - q16) / (2 * q50), "auc": auc}
    for eps in (0.3, 0.5):
        passed = (bkg > np.percentile(sig, 100 * (1 - eps))).mean()
        r = 1 / passed
        out[f"rejection_{int(100 * eps)}"], out[f"rejection_{int(100 * eps)}_error"] = r, r * math.sqrt((1 - passed) / (passed * len(bkg)))
    edges = np.quantile(truth, np.linspace(0.001, 0.999, 50))
    p, q = (np.histogram(s, edges)[0] for s in (truth, other))
    pd, qd = (np.histogram(s, edges, density=True)[0] + 1e-8 for s in (truth, other))
    kl = lambda a, b: float(np.sum(a / a.sum() * np.log((a / a.sum()) / (b / b.sum()))))
    out["kl"], out["kl_reference"] = kl(p / p.sum() + 1e-8, q / q.sum() + 1e-8), kl(pd, qd)
    out["w1"] = float(np.abs(np.sort(truth) - np.sort(other)).mean())
    g = Golden("metrics", item="16", kl="50 edges at the quantiles 0.001..0.999 of truth; 1e-8 added; KL(truth||generated)")
    g.add_all("in/", {"ratio": ratio, "signal": sig, "background": bkg, "truth": truth, "generated": other})
    g.add("out/edges.f64", edges)
    g.add_all("out/", {k + ".f64": np.array(v) for k, v in out.items()})
    g.write()


@golden
def preprocess():
    """alpha3: axis from all constituents, ln pt - 1.8, 3 deta, 3 dphi, strict cut at 0.8, the first 128 kept."""
    rng, packed, features, axes = np.random.default_rng(11), [], [], []
    lengths, keeps = [0, 1, 40, 160, 5], []
    for n, phi0 in zip(lengths, (0.0, 1.0, math.pi - 0.05, -2.0, 0.3)):
        pt = np.sort(rng.gamma(1.0, 8.0, n) + 0.2)[::-1]
        spread = 0.35 if n < 100 else 0.2
        eta, phi = 0.7 + spread * rng.standard_normal(n), phi0 + spread * rng.standard_normal(n)
        if n == 5:
            eta[:] = [5.0, -5.0, 4.0, -4.0, 0.0]  # back to back in eta: at most the last one survives
        p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], 1).astype(np.float32)
        packed.append(p)
        p = p.astype(float)
        total = p.sum(0)
        axis = np.array([np.arcsinh(total[2] / max(np.hypot(*total[:2]), 1e-300)), np.arctan2(total[1], total[0])])
        axes.append(axis)
        pt = np.hypot(p[:, 0], p[:, 1])
        deta = np.arcsinh(p[:, 2] / pt) - axis[0]
        dphi = (np.arctan2(p[:, 1], p[:, 0]) - axis[1] + math.pi) % (2 * math.pi) - math.pi
        keep = np.flatnonzero((pt > 0) & (np.abs(deta) < 0.8) & (np.abs(dphi) < 0.8))[:128]
        keeps.append(keep)
        features.append(np.stack([np.log(pt) - 1.8, 3 * deta, 3 * dphi], 1)[keep])
    g = Golden("preprocess", item="1")
    g.add("in/cu_seqlens", ragged(lengths)[1])
    g.add("in/p4", np.concatenate(packed))  # px, py, pz, E
    g.add("out/axis.f64", np.stack(axes))  # eta, phi
    g.add("out/cu_seqlens", ragged([len(k) for k in keeps])[1])
    g.add("out/kept", np.concatenate(keeps))  # index inside the jet
    g.add("out/features", np.concatenate(features))
    g.write()


if __name__ == "__main__":
    for name in sys.argv[1:] or FILES:
        FILES[name]()
        print(name)
