"""Heads and individual methods: items 12 and 13."""
import torch

import reference as ref
from golden_file import Golden, golden, ragged, record
from parameters import Params


def head(name, m, item, lengths, d, forward, **metadata):
    mask, cu = ragged(lengths)
    x = m.normal(*mask.shape, d).requires_grad_()
    y = forward(x, mask)
    pad = torch.nn.functional.pad
    wider = forward(pad(x, (0, 0, 0, 5), value=7.0), pad(mask, (0, 5)))
    assert torch.allclose(wider, y, rtol=1e-12, atol=1e-12), f"{name}: its answer depends on the padding"
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
        momenta = torch.nn.functional.pad(p4, (0, 0, 0, x.shape[1] - p4.shape[1]), value=7.0)
        y, bias = ref.part(m.p, x, momenta, mask, 4, stats)
        kept.setdefault("mask", mask)
        kept.setdefault("bias", bias)
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
