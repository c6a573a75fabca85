"""Losses, optimizer and schedules: items 9, 10 and 14."""
import json

import torch

from golden_file import HERE, Golden, golden, grads
from parameters import Params


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
