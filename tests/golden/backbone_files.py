"""Backbones and the objectives of pre-training: items 7, 8 and 17."""
import numpy as np
import torch

import reference as ref
from golden_file import Golden, golden, grads, ragged, record
from parameters import Params


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
