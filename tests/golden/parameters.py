"""Parameters of the models under the engine's names, drawn from one seed."""
import numpy as np
import torch


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
