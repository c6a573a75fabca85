#!/usr/bin/env python3
"""The layers and steps of step_bench.cpp in PyTorch, in turn with it, and the ratio of their times.

  step_peer.py BUILD/bench/step_bench [THREADS]
  step_peer.py --cuda

The second form times its own steps alone on a GPU, in f32 and bf16, for the table of bench/gpu.

Two peers: "as published" pads every jet to 128 slots, masks scores, and scores all slots, as the public OmniJet-alpha
code does (uhh-pd-ml/omnijet_alpha); "tuned" pads to the longest jet, uses scaled_dot_product_attention with the causal flag,
the head on real rows alone, and the fused AdamW. Needs torch, which the project itself never does.
"""
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

JETS, WIDTH, HEADS, VOCABULARY = 64, 256, 8, 8194
LENGTHS = [30 + j * 37 % 99 for j in range(JETS)]  # the rule of step_bench.cpp


def fused(q, k, v, causal, keep):
    """The causal mask hides the padding behind real rows by itself."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, attn_mask=None if causal else keep)


def unfused(q, k, v, causal, keep):
    """keep: (B, 1, 1, L), the real keys."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if causal:
        length = q.shape[-2]
        keep = keep & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.softmax(scores.masked_fill(~keep, float("-inf")), -1) @ v


class Block(nn.Module):
    """Post-norm, ReLU, as OmniJet-alpha's."""

    def __init__(self, attend, dropout=0.0):
        super().__init__()
        self.attend = attend
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), dropout

    def forward(self, x, causal, keep):
        b, length, _ = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        a = self.attend(q, k, v, causal, keep).transpose(1, 2).reshape(b, length, WIDTH)
        x = self.norm1(x + self.out(a))
        return self.norm2(x + self.fc2(F.dropout(F.relu(self.fc1(x)), self.dropout)))


class Gpt(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.blocks = nn.ModuleList(Block(attend) for _ in range(3))

    def forward(self, ids, keep):
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h, True, keep)
        return h


def real(lengths, width):
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


def encoder_layer(dropout, tuned):
    torch.manual_seed(1)
    mask = real(LENGTHS, max(LENGTHS) if tuned else 128)
    x = torch.rand(*mask.shape, WIDTH, requires_grad=True)
    block, upstream = Block(fused if tuned else unfused, dropout), torch.rand(*mask.shape, WIDTH) * mask[..., None]

    def step():
        block(x, False, mask[:, None, None]).backward(upstream)
        block.zero_grad(set_to_none=True)
        x.grad = None

    return step


def omnijet_step(tuned):
    torch.manual_seed(1)
    model = Gpt(fused if tuned else unfused)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, **({"fused": True} if tuned else {}))
    lengths = [n + 1 for n in LENGTHS]
    mask = real(lengths, max(lengths) if tuned else 129)
    ids, targets = torch.randint(0, VOCABULARY, mask.shape), torch.randint(1, VOCABULARY, mask.shape)

    def step():
        optimizer.zero_grad(set_to_none=True)
        h = model(ids, mask[:, None, None])
        loss = F.cross_entropy(model.head(h[mask]), targets[mask]) if tuned else \
            F.cross_entropy(model.head(h).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def seconds(step, repeats=5, wait=lambda: None):
    step()
    times = []
    for _ in range(repeats):
        wait()
        begin = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def on_gpu(device):
    torch.set_default_device(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for name, dtype in (("f32", None), ("bf16", torch.bfloat16)):
        times = []
        for tuned in (False, True):
            step = omnijet_step(tuned)
            with torch.autocast(device, dtype, enabled=dtype is not None):
                seconds(step, 2, wait)
                times.append(1e3 * seconds(step, 21, wait))
        print(f"PyTorch {torch.__version__} {name:5} as published {times[0]:8.3f} ms, tuned {times[1]:8.3f} ms")


def ours(program, name):
    out = subprocess.run([program, f"--benchmark_filter={name}$", "--benchmark_format=json", "--benchmark_repetitions=5",
                          "--benchmark_report_aggregates_only=true"], capture_output=True, text=True, check=True).stdout
    row = next(r for r in json.loads(out)["benchmarks"] if r["aggregate_name"] == "median")
    return row["real_time"] / 1e3, row["%roof"]


def main(program, threads):
    torch.set_num_threads(threads)
    print(f"PyTorch {torch.__version__}, {threads} thread(s), {JETS} jets; medians of 5, each program alone in turn")
    print(f"{'':32} {'Tessera':>10} {'% roof':>7} {'as published':>14} {'tuned':>10}   ratios")
    rows = [(f"BM_encoder_layer/f32/threads:{threads}/dropout:{p}/real_time", lambda tuned, p=p: encoder_layer(p / 100, tuned)) for p in (0, 10)]
    rows.append((f"BM_omnijet_step/f32/threads:{threads}/real_time", omnijet_step))
    for name, make in rows:
        mine, roof = ours(program, name)
        published, tuned = seconds(make(False)), seconds(make(True))
        print(f"{name.removeprefix('BM_').replace('/f32', '').removesuffix('/real_time'):32} {1e3 * mine:7.1f} ms {roof:7.1f} {1e3 * published:11.1f} ms {1e3 * tuned:7.1f} ms"
              f"   {published / mine:.2f} {tuned / mine:.2f}")


if __name__ == "__main__" and sys.argv[1:] == ["--cuda"]:
    on_gpu("cuda")
elif __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
