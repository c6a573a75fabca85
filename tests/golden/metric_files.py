"""Metrics and preprocessing, in numpy: items 1 and 16."""
import math

import numpy as np

from golden_file import Golden, golden, ragged


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
        cut = np.sort(sig)[::-1][math.ceil(eps * len(sig)) - 1]  # the k-th largest; ties pass on both sides
        passed = (bkg >= cut).mean()
        r = 1 / passed
        out[f"rejection_{int(100 * eps)}"], out[f"rejection_{int(100 * eps)}_error"] = r, r * math.sqrt((1 - passed) / (passed * len(bkg)))
    edges = np.quantile(truth, np.linspace(0.001, 0.999, 30))
    kl = lambda a, b: float(np.sum(a / a.sum() * np.log((a / a.sum()) / (b / b.sum()))))
    p, q = (np.histogram(s, np.concatenate([[-np.inf], edges, [np.inf]]))[0] + 0.5 for s in (truth, other))
    pd, qd = (np.histogram(s, edges, density=True)[0] + 1e-8 for s in (truth, other))
    out["kl"], out["kl_reference"] = kl(p, q), kl(pd, qd)
    out["w1"] = float(np.abs(np.sort(truth) - np.sort(other)).mean())
    g = Golden("metrics", item="16", kl="30 edges at the quantiles 0.001..0.999 of truth; KL(truth||generated); kl: masses with outer bins, 0.5 added to counts; kl_reference: densities + 1e-8, renormalised without bin widths")
    g.add_all("in/", {"ratio": ratio, "signal": sig, "background": bkg, "truth": truth, "generated": other})
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
