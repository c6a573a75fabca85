"""Checkpoints as PyTorch Lightning writes them, with OmniJet-alpha's names: item 18. Their weights are those of the golden
files `tokenizer` and `gpt_heads_of_8`, so that what an imported model computes is known."""
import collections
import functools

import torch

from golden_file import HERE, golden
from parameters import Params

TOKENIZER = [("tokenizer.in.", "model.input_projection."), ("tokenizer.enc.", "model.encoder_normformer.blocks."),
             ("tokenizer.dec.", "model.decoder_normformer.blocks."), ("tokenizer.to_latent.", "model.latent_projection_in."),
             ("tokenizer.from_latent.", "model.latent_projection_out."), ("tokenizer.out.", "model.output_projection."),
             ("tokenizer.vq.codebook", "model.vqlayer.codebook.weight"), ("tokenizer.vq.affine.", "model.vqlayer.affine_transform."),
             (".attn.qkv.weight", ".attn.in_proj_weight"), (".attn.qkv.bias", ".attn.in_proj_bias"), (".attn.out.", ".attn.out_proj."),
             (".mlp.norm.", ".mlp.0."), (".mlp.fc1.", ".mlp.1."), (".mlp.fc2.", ".mlp.4.")]
BACKBONE = [("backbone.embed.token.weight", "module.embedding_table.weight"), ("backbone.block.", "module.GPT_blocks."),
            (".attn.out.", ".mha_block.proj."), (".ff.fc1.", ".ff_block.net.0."), (".ff.fc2.", ".ff_block.net.2."),
            (".norm1.", ".layernorm_1."), (".norm2.", ".layernorm_2."), ("head.ntp.", "head.fc1.")]


def renamed(name, rules):
    return functools.reduce(lambda text, rule: text.replace(*rule), rules, name)


def save(name, state, **hyper_parameters):
    state = collections.OrderedDict((k, v.detach().float() if v.is_floating_point() else v) for k, v in state.items())
    torch.save({"epoch": 59, "global_step": 12, "pytorch-lightning_version": "2.0.9", "state_dict": state,
                "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}],
                "hyper_parameters": {"optimizer": functools.partial(torch.optim.AdamW, lr=1e-3), **hyper_parameters}},
               HERE / f"{name}.ckpt")


@golden
def omnijet_checkpoints():
    m = Params(51)
    m.tokenizer(16, 2, 64)
    state = {renamed(k, TOKENIZER): v for k, v in m.p.items()}
    save("omnijet_tokenizer", {**state, "model.vqlayer.data_initialized": torch.ones(1), "model.vqlayer._counts": torch.arange(64) % 10},
         model_kwargs={"hidden_dim": 16, "num_heads": 4})

    m, d = Params(71), 32
    m.put("backbone.embed.token.weight", 66, d)
    for i in range(2):
        m.gpt_block(f"backbone.block.{i}", d)
    m.linear("head.ntp", d, 66)
    state = {}
    for k, v in m.p.items():
        if k.endswith("attn.qkv.weight"):  # one Linear each
            for part, rows in zip(("query", "key", "value"), v.chunk(3)):
                state[renamed(k, BACKBONE).replace(".attn.qkv.", f".mha_block.{part}.")] = rows.clone()
        else:
            state[renamed(k, BACKBONE)] = v
    for i in range(2):
        state[f"module.GPT_blocks.{i}.mha_block.tril"] = torch.ones(40, 40).tril()
    save("omnijet_backbone", state, n_heads=4)
