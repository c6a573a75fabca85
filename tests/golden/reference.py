"""The models of Tessera once more, in plain PyTorch and double precision, written from the specification.

Everything here works on padded batches (B, L, ...) with boolean masks: the engine packs, the reference pads, and
a test that compares the two therefore checks the packing as well. Parameters live in one flat dict that maps the
engine's names to tensors; a function takes that dict and the prefix of the part that it computes.
"""
import math

import torch
import torch.nn.functional as F

NEG = float("-inf")


# ---- pieces -------------------------------------------------------------------------------------------------
def linear(p, name, x):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def norm(p, name, x):
    w = p[name + ".weight"]
    return F.layer_norm(x, w.shape, w, p[name + ".bias"], 1e-5)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def mha(p, name, q_in, kv_in, heads, visible, bias=None):
    """Multi-head attention, rows q|k|v of qkv; visible (B, Lq, Lk) is True where a query may see a key.

    A query that sees nothing (padding only) yields zeros before the output projection."""
    w = p[name + ".qkv.weight"]
    b = p.get(name + ".qkv.bias")
    d = w.shape[1]
    split = lambda t: t.reshape(t.shape[0], t.shape[1], heads, -1).transpose(1, 2)
    part = lambda x, i: split(x @ w[i * d:(i + 1) * d].T + (0 if b is None else b[i * d:(i + 1) * d]))
    q, k, v = part(q_in, 0), part(kv_in, 1), part(kv_in, 2)
    score = q @ k.transpose(-1, -2) / math.sqrt(d / heads)
    if bias is not None:
        score = score + bias
    some = visible.any(-1, keepdim=True)
    score = score.masked_fill(~(visible | ~some)[:, None], NEG)
    out = (score.softmax(-1) * some[:, None]) @ v
    return linear(p, name + ".out", out.transpose(1, 2).reshape(q_in.shape))


def visible(mask, causal=False):
    """(B, L) key mask -> (B, L, L) visibility."""
    length = mask.shape[1]
    seen = mask[:, None, :].expand(-1, length, -1)
    return seen & torch.ones(length, length, dtype=torch.bool).tril() if causal else seen


# ---- tokenizer ----------------------------------------------------------------------------------------------
def normformer_block(p, name, x, mask, heads, causal=False):
    h = norm(p, name + ".norm1", x)
    r = x + norm(p, name + ".norm2", mha(p, name + ".attn", h, h, heads, visible(mask, causal)))
    h = linear(p, name + ".mlp.fc1", norm(p, name + ".mlp.norm", r))
    return r + linear(p, name + ".mlp.fc2", F.silu(h))


def effective_codebook(p, name="tokenizer.vq"):
    return (1 + 2 * p[name + ".affine.scale"]) * p[name + ".codebook"] + 2 * p[name + ".affine.bias"]


def vector_quant(p, z, beta=0.9, nu=1.0, name="tokenizer.vq"):
    """z (..., 4). Returns straight-through output, codes, loss (mean over all elements of z)."""
    e = effective_codebook(p, name)
    d2 = (z.detach()[..., None, :] - e.detach()).square().sum(-1)
    codes = d2.argmin(-1)
    zq = e[codes]
    loss = (1 - beta) * (z - zq.detach()).square().mean() + beta * (z.detach() - zq).square().mean()
    out = z + (zq - z).detach() + nu * zq - (nu * zq).detach()
    return out, codes, loss, d2


def tokenizer(p, x, mask, heads, reference, alpha=10.0, causal_decoder=False):
    """reference: every pad slot counts in both means, with z = 0 and a masked reconstruction."""
    m = mask[..., None]
    count = lambda part: len({k.split(".")[2] for k in p if k.startswith(f"tokenizer.{part}.")})
    h = linear(p, "tokenizer.in", x)
    for i in range(count("enc")):
        h = normformer_block(p, f"tokenizer.enc.{i}", h, mask, heads)
    z = linear(p, "tokenizer.to_latent", h) * m
    if reference:
        zq, codes, loss_vq, _ = vector_quant(p, z)
    else:
        real, real_codes, loss_vq, _ = vector_quant(p, z[mask])
        zq = torch.zeros_like(z).masked_scatter(m.expand_as(z), real)
        codes = torch.full(mask.shape, -1).masked_scatter(mask, real_codes)
    h = linear(p, "tokenizer.from_latent", zq)
    for i in range(count("dec")):
        h = normformer_block(p, f"tokenizer.dec.{i}", h, mask, heads, causal_decoder)
    y = linear(p, "tokenizer.out", h) * m
    slots = mask.numel() if reference else int(mask.sum())
    loss_reco = ((y - x) * m).square().sum() / (x.shape[-1] * slots)
    return dict(z=z, codes=codes, y=y, loss_reco=loss_reco, loss_vq=loss_vq, loss=loss_reco + alpha * loss_vq)


# ---- backbones ----------------------------------------------------------------------------------------------
def gpt_block(p, name, x, mask, heads, causal=True):
    """Post-LN, ReLU."""
    x = norm(p, name + ".norm1", x + mha(p, name + ".attn", x, x, heads, visible(mask, causal)))
    return norm(p, name + ".norm2", x + linear(p, name + ".ff.fc2", F.relu(linear(p, name + ".ff.fc1", x))))


def gpt_backbone(p, ids, mask, heads):
    h = p["backbone.embed.token.weight"][ids]
    for i in range(len({k.split(".")[2] for k in p if k.startswith("backbone.block.")})):
        h = gpt_block(p, f"backbone.block.{i}", h, mask, heads)
    return h


def preln_block(p, name, x, heads, seen):
    h = norm(p, name + ".norm1", x)
    x = x + p[name + ".gate1"] * mha(p, name + ".attn", h, h, heads, seen)
    h = linear(p, name + ".ff.fc2", gelu(linear(p, name + ".ff.fc1", norm(p, name + ".norm2", x))))
    return x + p[name + ".gate2"] * h


def tessera_embed(p, core, pid, ctx, s):
    return linear(p, "backbone.embed.core", core) + p["backbone.embed.pid.weight"][pid] \
        + s * (ctx @ p["backbone.embed.ctx.weight"].T)


def tessera_backbone(p, x, mask, heads, causal):
    """x (B, L, d) embedded rows without registers; they are put in front here and dropped again."""
    reg = p["backbone.registers"]
    batch, r = x.shape[0], reg.shape[0]
    h = torch.cat([reg.expand(batch, -1, -1), x], 1)
    full = torch.cat([torch.ones(batch, r, dtype=torch.bool), mask], 1)
    for i in range(len({k.split(".")[2] for k in p if k.startswith("backbone.block.")})):
        h = preln_block(p, f"backbone.block.{i}", h, heads, visible(full, causal))
    return norm(p, "backbone.norm", h)[:, r:]


# ---- heads and baselines ------------------------------------------------------------------------------------
def sum_head(p, h, mask):
    e = F.relu(linear(p, "head.sum.fc1", h)) * mask[..., None]
    return linear(p, "head.sum.fc2", e.sum(1))


def class_attention_ref(p, x, mask, heads=2, name="head.class_attention_ref"):
    """No residual, the query is not normalised, the class token itself is one of the keys."""
    cls = p[name + ".cls"].expand(x.shape[0], 1, -1)
    seen = torch.cat([torch.ones(x.shape[0], 1, dtype=torch.bool), mask], 1)[:, None]
    for i in range(3):
        kv = norm(p, f"{name}.block.{i}.norm", torch.cat([cls, x], 1))
        cls = mha(p, f"{name}.block.{i}.attn", cls, kv, heads, seen)
    h = F.silu(linear(p, name + ".fc1", cls[:, 0]))
    return linear(p, name + ".fc3", F.silu(linear(p, name + ".fc2", h)))


def part_block(p, name, x, q, seen, heads, bias=None):
    """ParT block. q is None: self-attention of x. Otherwise a class block: query q, keys LN([q; x])."""
    kv = norm(p, name + ".norm1", x if q is None else torch.cat([q, x], 1))
    a = mha(p, name + ".attn", kv if q is None else q, kv, heads, seen, bias)
    a = a * p[name + ".c_attn"].repeat_interleave(a.shape[-1] // heads)
    x = (x if q is None else q) + norm(p, name + ".post_norm", a)
    f = norm(p, name + ".fc_norm", gelu(linear(p, name + ".fc1", norm(p, name + ".norm2", x))))
    return linear(p, name + ".fc2", f) + p[name + ".w_resid"] * x


def tau_head(p, x, mask, heads, name="head.tau", bias=None):
    count = lambda part: len({k.split(".")[name.count(".") + 2] for k in p if k.startswith(f"{name}.{part}.")})
    for i in range(count("block")):
        x = part_block(p, f"{name}.block.{i}", x, None, visible(mask), heads, bias)
    cls = p[name + ".cls"].expand(x.shape[0], 1, -1)
    seen = torch.cat([torch.ones(x.shape[0], 1, dtype=torch.bool), mask], 1)[:, None]
    for i in range(count("cls_block")):
        cls = part_block(p, f"{name}.cls_block.{i}", x, cls, seen, heads)
    return linear(p, name + ".fc", norm(p, name + ".norm", cls[:, 0]))


def batch_norm(p, name, x, stats):
    """x (rows, C), training mode: biased variance normalises; stats collects what the running values see."""
    mean, var = x.mean(0), x.var(0, unbiased=False)
    stats[name] = (mean.detach(), (var * len(x) / (len(x) - 1)).detach())
    return (x - mean) / torch.sqrt(var + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def pair_features(p4):
    """p4 (..., 4) = px, py, pz, E -> (..., L, L, 4): ln kT, ln z, ln dR, ln m^2; each clamped at 1e-8 before ln."""
    px, py, pz, e = p4.unbind(-1)
    pt, y, phi = torch.hypot(px, py), 0.5 * torch.log((e + pz) / (e - pz)), torch.atan2(py, px)
    pair = lambda f, v: f(v[..., :, None], v[..., None, :])
    dphi = (pair(torch.sub, phi) + math.pi) % (2 * math.pi) - math.pi
    dr = torch.hypot(pair(torch.sub, y), dphi)
    low = pair(torch.minimum, pt)
    total = p4[..., :, None, :] + p4[..., None, :, :]
    m2 = total[..., 3].square() - total[..., :3].square().sum(-1)
    logs = [low * dr, low / pair(torch.add, pt), dr, m2]
    return torch.stack([v.clamp(min=1e-8).log() for v in logs], -1)


def part(p, x, p4, mask, heads, stats):
    """ParT-tau: x (B, L, 13). BatchNorm runs over real particles, and over real pairs i >= j once each."""
    h = torch.zeros(*mask.shape, p["part.embed.2.fc.weight"].shape[0], dtype=x.dtype)
    rows = batch_norm(p, "part.embed.bn", x[mask], stats)
    for i in range(3):
        rows = gelu(linear(p, f"part.embed.{i}.fc", norm(p, f"part.embed.{i}.norm", rows)))
    h = h.masked_scatter(mask[..., None].expand_as(h), rows)
    length = mask.shape[1]
    half = mask[:, :, None] & mask[:, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
    u = batch_norm(p, "part.pair.bn", pair_features(p4)[half], stats)
    for i in range(4):
        u = gelu(batch_norm(p, f"part.pair.{i}.bn", linear(p, f"part.pair.{i}.conv", u), stats))
    bias = torch.zeros(*half.shape, heads, dtype=x.dtype)
    bias = bias.masked_scatter(half[..., None].expand_as(bias), u)
    diagonal = torch.eye(length, dtype=torch.bool)[:, :, None]
    bias = bias + bias.transpose(1, 2).masked_fill(diagonal, 0)
    return tau_head(p, h, mask, heads, "part", bias.permute(0, 3, 1, 2)), bias


def mlp(p, name, x, act, last):
    n = len({k.split(".")[2] for k in p if k.startswith(name + ".")})
    for i in range(n):
        x = linear(p, f"{name}.{i}", x)
        x = act(x) if last or i + 1 < n else x
    return x


def deepsets(p, x, mask):
    phi = mlp(p, "deepsets.phi", x, gelu, last=True) * mask[..., None]
    mean = phi.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return mlp(p, "deepsets.f", gelu(mean), gelu, last=False)


def pfn(p, x, mask):
    phi = mlp(p, "pfn.phi", x, F.relu, last=True) * mask[..., None]
    return mlp(p, "pfn.f", phi.sum(1), F.relu, last=False)


# ---- joint pre-training -------------------------------------------------------------------------------------
def ntp_mpm(p, jet, mask, masked, heads, codebook_size):
    """jet: core (raw), core_token, pid, ctx, codes, all padded to (B, L). masked (B, L): hidden from the bidir stream.

    Returns the four terms and the sum L = NTP[code + pid] + MPM[code + pid], each a mean over its scored rows."""
    batch, length = mask.shape
    start = p["backbone.start"].expand(batch, 1, -1)
    x = tessera_embed(p, jet["core_token"], jet["pid"], jet["ctx"], 0.0)
    one = torch.ones(batch, 1, dtype=torch.bool)
    seq = torch.cat([one, mask], 1)
    h = tessera_backbone(p, torch.cat([start, x], 1), seq, heads, causal=True)
    h = preln_block(p, "head.pretrain.ntp.block", h, heads, visible(seq, True))
    h = norm(p, "head.pretrain.ntp.norm", h)
    target = torch.where(mask, jet["codes"] + 1, torch.tensor(codebook_size + 1))
    target = torch.cat([target, torch.full((batch, 1), codebook_size + 1)], 1)
    next_pid = torch.cat([torch.where(mask, jet["pid"], torch.tensor(8)), torch.full((batch, 1), 8)], 1)
    ntp = pretrain_losses(p, h, target, next_pid, seq)

    keep = mask & ~masked
    x = tessera_embed(p, jet["core"], jet["pid"], jet["ctx"], 1.0)
    g = tessera_backbone(p, x, keep, heads, causal=False)
    rank = (masked.long().cumsum(1) - 1).clamp(min=0)
    g = torch.where(masked[..., None], p["head.pretrain.mask"][rank], g)
    g = preln_block(p, "head.pretrain.mpm.block", g, heads, visible(mask))
    g = norm(p, "head.pretrain.mpm.norm", g)
    mpm = pretrain_losses(p, g, jet["codes"] + 1, jet["pid"], masked)
    return dict(ntp_code=ntp[0], ntp_pid=ntp[1], mpm_code=mpm[0], mpm_pid=mpm[1], loss=sum(ntp) + sum(mpm)), h, g


def pretrain_losses(p, h, target, pid, scored):
    h, target, pid = h[scored], target[scored], pid[scored]
    code = F.cross_entropy(linear(p, "head.pretrain.unembed", h), target)
    known = pid < 8
    u = p["head.pretrain.unembed.weight"].detach()[target]
    logits = linear(p, "head.pretrain.pid", norm(p, "head.pretrain.pid_norm", h + u))
    return code, F.cross_entropy(logits[known], pid[known])
