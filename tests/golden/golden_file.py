"""The file format of the golden files, and what every maker of one needs."""
import json
import pathlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "uint8": "U8"}


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
