"""Quantizer, NormFormer blocks, tokenizer: items 2 to 5 of the parity list."""
import numpy as np
import torch

import reference as ref
from golden_file import Golden, golden, grads, ragged, record
from parameters import Params


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


def half_distances(z, e):
    """torch.cdist of halfs in its product form (T, K): columns [-2 z, |z|^2, 1] . [e, 1, |e|^2] summed in float32,
    squares, norms, sum and root rounded to half."""
    norm = lambda x: (x * x).sum(-1, dtype=np.float32).astype(np.float16)
    z, e = z.astype(np.float16), e.astype(np.float16)
    total = np.zeros((len(z), len(e)), np.float32)
    for d in range(z.shape[1]):
        total += np.outer(-2 * z[:, d].astype(np.float32), e[:, d].astype(np.float32))
    total += norm(z).astype(np.float32)[:, None]
    total += norm(e).astype(np.float32)
    return np.sqrt(np.maximum(total.astype(np.float16), np.float16(0)))


def half_cases(rng):
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    e = normal(1024, 4)
    yield "random", normal(513, 4), e
    # rows near the middle of two codes, some of them codes themselves
    a, b = rng.integers(0, 1024, 257), rng.integers(0, 1024, 257)
    yield "near", (e[a] + e[b]) / 2 + np.float32(1e-4) * normal(257, 4), e
    yield "codes", e[a], e
    # multiples of 1/2: sums are exact and many distances equal; each code twice
    e = np.concatenate([c := rng.integers(-4, 5, (60, 3)).astype(np.float32) / 2, c])
    yield "ties", rng.integers(-4, 5, (129, 3)).astype(np.float32) / 2, e
    # from halfs below the normal ones to norms that no half can hold
    sizes = np.float32(10) ** rng.uniform(-6, 2.6, (257, 1)).astype(np.float32)
    yield "sizes", sizes * normal(257, 5), np.float32(10) ** rng.uniform(-6, 2.6, (67, 1)).astype(np.float32) * normal(67, 5)


@golden
def vq_f16():
    g = Golden("vq_f16", item="3", distance="torch.cdist of halfs; out/exact: in double")
    for name, z, e in half_cases(np.random.default_rng(33)):
        with np.errstate(over="ignore", invalid="ignore"):
            half = half_distances(z, e)
        half = np.where(np.isfinite(half), half, np.inf)  # never the least; argmin takes the first of equal ones
        exact = np.square(z[:, None].astype(float) - e.astype(float)).sum(-1).argmin(-1)
        g.add(f"in/{name}/z", z)
        g.add(f"in/{name}/codebook", e)
        g.add(f"out/{name}/codes", half.argmin(-1))
        g.add(f"out/{name}/exact", exact)
        print(f"  {name}: another code than exact search for {100 * (half.argmin(-1) != exact).mean():.2f} %")
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
