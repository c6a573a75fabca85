#!/usr/bin/env python3
"""The reader of PyTorch checkpoints, without PyTorch: the golden checkpoints (tests/golden/checkpoint_files.py), and files that
somebody made to harm. Every refusal is exit code 65 and one line; nothing that a pickle names is run."""
import io
import json
import pathlib
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "apps" / "python" / "import_checkpoint.py"
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(PROGRAM.parent))
import import_checkpoint as program  # noqa: E402


def tensors_of(path):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    cut = lambda a, b: data[8 + n + a:8 + n + b]
    return {k: (v["dtype"], v["shape"], cut(*v["data_offsets"])) for k, v in header.items()}


class Torch:
    """Names as PyTorch's pickles have them, for a pickle written without it."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Writer(pickle._Pickler):  # the Python one, whose dispatch takes classes of our own
    dispatch = dict(pickle._Pickler.dispatch)

    def persistent_id(self, thing):
        return thing.key if isinstance(thing, StorageKey) else None

    def save_name(self, thing):
        self.write(b"c" + f"{thing.module}\n{thing.name}\n".encode())

    def save_call(self, thing):
        self.save(thing.function)
        self.save(thing.arguments)
        self.write(b"R")

    dispatch[Torch] = save_name


class StorageKey:
    def __init__(self, name, count, kind="FloatStorage"):
        self.key = ("storage", Torch("torch", kind), name, "cpu", count)


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


Writer.dispatch[Call] = Writer.save_call


def tensor(name, count, shape, stride, offset=0, kind="FloatStorage"):
    return Call(Torch("torch._utils", "_rebuild_tensor_v2"), StorageKey(name, count, kind), offset, shape, stride, False, {})


def archive(content, storages, **options):
    """The bytes of a checkpoint; `content` may be a pickle already."""
    text = io.BytesIO()
    if isinstance(content, bytes):
        text.write(content)
    else:
        Writer(text, protocol=2).dump(content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", options.get("compression", zipfile.ZIP_STORED)) as z:
        z.writestr("x/data.pkl", text.getvalue())
        z.writestr("x/byteorder", options.get("byteorder", "little"))
        for name, data in storages.items():
            z.writestr(f"x/data/{name}", data)
    return out.getvalue()


class CheckpointTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.source, self.destination = self.folder / "in.ckpt", self.folder / "out.safetensors"

    def run_program(self, source):
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        return subprocess.run([sys.executable, PROGRAM, source, self.destination], capture_output=True, text=True, timeout=20, preexec_fn=limit)

    def converted(self, data):
        self.source.write_bytes(data)
        done = self.run_program(self.source)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return tensors_of(self.destination)

    def refused(self, data, words=""):
        self.source.write_bytes(data)
        done = self.run_program(self.source)
        self.assertEqual(done.returncode, 65, (words, done.stderr))
        self.assertRegex(done.stderr, r"^import_checkpoint\.py: .*in\.ckpt: .*\n$")
        self.assertIn(words, done.stderr)
        self.assertFalse(self.destination.exists())


class GoldenTest(CheckpointTest):
    def test_the_weights_are_those_of_the_golden_files(self):
        for checkpoint, golden, pairs in (
                ("omnijet_tokenizer", "tokenizer", {"model.input_projection.weight": "param/tokenizer.in.weight", "model.encoder_normformer.blocks.1.attn.in_proj_bias":
                 "param/tokenizer.enc.1.attn.qkv.bias", "model.decoder_normformer.blocks.0.mlp.4.weight": "param/tokenizer.dec.0.mlp.fc2.weight",
                 "model.vqlayer.codebook.weight": "param/tokenizer.vq.codebook", "model.vqlayer.affine_transform.scale": "param/tokenizer.vq.affine.scale"}),
                ("omnijet_backbone", "gpt_heads_of_8", {"module.embedding_table.weight": "param/backbone.embed.token.weight", "head.fc1.bias": "param/head.ntp.bias",
                 "module.GPT_blocks.1.layernorm_2.weight": "param/backbone.block.1.norm2.weight"})):
            done = self.run_program(GOLDEN / f"{checkpoint}.ckpt")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            theirs, ours = tensors_of(self.destination), tensors_of(GOLDEN / f"{golden}.safetensors")
            for name, wanted in pairs.items():
                self.assertEqual(theirs[name], ours[wanted], name)

    def test_twice_the_same_bytes(self):
        self.run_program(GOLDEN / "omnijet_backbone.ckpt")
        first = self.destination.read_bytes()
        self.run_program(GOLDEN / "omnijet_backbone.ckpt")
        self.assertEqual(self.destination.read_bytes(), first)

    def test_the_parts_of_a_packed_projection_are_three_tensors(self):
        self.run_program(GOLDEN / "omnijet_backbone.ckpt")
        theirs, ours = tensors_of(self.destination), tensors_of(GOLDEN / "gpt_heads_of_8.safetensors")
        joined = b"".join(theirs[f"module.GPT_blocks.0.mha_block.{part}.weight"][2] for part in ("query", "key", "value"))
        self.assertEqual(joined, ours["param/backbone.block.0.attn.qkv.weight"][2])


class LayoutTest(CheckpointTest):
    def test_views_and_every_type(self):
        floats = struct.pack("<6f", *range(6))
        got = self.converted(archive(
            {"a": tensor("0", 6, (3, 2), (2, 1)), "t": tensor("0", 6, (2, 3), (1, 2)), "row": tensor("0", 6, (2,), (1,), offset=4),
             "none": tensor("0", 6, (0, 4), (4, 1)), "scalar": tensor("0", 6, (), (), offset=3), "h": tensor("1", 2, (2,), (1,), kind="HalfStorage"),
             "i": tensor("2", 1, (1,), (1,), kind="LongStorage"), "b": tensor("3", 2, (2,), (1,), kind="BoolStorage"), "d": tensor("4", 1, (), (), kind="DoubleStorage")},
            {"0": floats, "1": struct.pack("<2e", 0.5, -2), "2": struct.pack("<q", -7), "3": b"\0\1", "4": struct.pack("<d", 0.1)}))
        self.assertEqual(got["a"], ("F32", [3, 2], floats))
        self.assertEqual(struct.unpack("<6f", got["t"][2]), (0, 2, 4, 1, 3, 5))
        self.assertEqual(struct.unpack("<2f", got["row"][2]), (4, 5))
        self.assertEqual(got["none"], ("F32", [0, 4], b""))
        self.assertEqual(got["scalar"], ("F32", [], struct.pack("<f", 3)))
        self.assertEqual(got["h"], ("F32", [2], struct.pack("<2f", 0.5, -2)))
        self.assertEqual(got["i"], ("I64", [1], struct.pack("<q", -7)))
        self.assertEqual(got["b"], ("U8", [2], b"\0\1"))
        self.assertEqual(got["d"], ("F64", [], struct.pack("<d", 0.1)))

    def test_what_is_not_the_state_is_dropped_unread(self):
        odd = Call(Torch("omegaconf.dictconfig", "DictConfig"), {"deep": [1, 2]})
        got = self.converted(archive({"state_dict": {"w": tensor("0", 1, (1,), (1,))}, "hyper_parameters": odd}, {"0": b"\0\0\x80\x3f"}))
        self.assertEqual(list(got), ["w"])


class HostileTest(CheckpointTest):
    good = {"0": struct.pack("<4f", 1, 2, 3, 4)}

    def test_nothing_that_a_pickle_names_is_run(self):
        mark = self.folder / "ran"
        for module, name, argument in (("os", "system", f"touch {mark}"), ("posix", "system", f"touch {mark}"), ("builtins", "eval", f"open({str(mark)!r}, 'w')"),
                                       ("builtins", "exec", f"open({str(mark)!r}, 'w')"), ("subprocess", "getoutput", f"touch {mark}"),
                                       ("torch._utils", "os.system", f"touch {mark}"), ("import_checkpoint", "os.system", f"touch {mark}")):
            call = Call(Torch(module, name), argument)
            self.refused(archive({"w": call}, {}), "expected tensors by name, got Ignored")
            self.converted(archive({"state_dict": {"w": tensor("0", 4, (4,), (1,))}, "x": call}, self.good))
            self.destination.unlink()
            self.assertFalse(mark.exists(), (module, name))

    def test_sizes_that_lie(self):
        for shape, stride, offset in (((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (4, 1), 0), ((1 << 60, 1 << 60), (0, 0), 0), ((1 << 40,), (0,), 0), ((4,), (-1,), 0),
                                      ((-4,), (1,), 0), ((4.0,), (1,), 0), ((4,), (1, 1), 0), ([4], [1], 0), ((2, 1, 1, 1, 1, 1, 2), (2, 1, 1, 1, 1, 1, 1), 0)):
            self.refused(archive({"w": tensor("0", 4, shape, stride, offset)}, self.good))
        self.refused(archive({"w": tensor("0", 1 << 50, (4,), (1,))}, self.good), "expected 1125899906842624 elements")
        self.refused(archive({"w": tensor("1", 4, (4,), (1,))}, self.good), "storage '1' is missing")
        self.refused(archive({"a": tensor("0", 4, (4,), (1,)), "w": tensor("0", 4, (4,), (1,), kind="IntStorage")}, self.good), "of two types")
        self.refused(archive({"w": tensor("../../../etc/passwd", 4, (4,), (1,))}, self.good), "missing")

    def test_archives_of_another_kind(self):
        fine = {"w": tensor("0", 4, (4,), (1,))}
        self.refused(archive(fine, {"0": bytes(16)}, compression=zipfile.ZIP_DEFLATED), "expected an uncompressed member")
        self.refused(archive(fine, self.good, byteorder="big"), "little-endian")
        self.refused(archive([1, 2], {}), "expected a dictionary")
        self.refused(archive({}, {}), "expected a state_dict with weights")
        self.refused(archive({"state_dict": {3: tensor("0", 4, (4,), (1,))}}, self.good), "tensors by name")
        self.refused(b"", "zip archive")
        self.refused(pickle.dumps({"w": 1}), "zip archive")

    def test_pickles_that_are_large_or_deep(self):
        self.refused(archive(b"\x80\x02" + b"(" * 100_000 + b".", {}))
        self.refused(archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", {}))
        self.refused(archive(b"\x80\x02Nr\xff\xff\xff\xff.", {}))  # a memo of four thousand million entries
        self.refused(archive(b"\x80\x02X\xff\xff\xff\x7fabc.", {}))
        self.refused(archive(b"\x80\x04\x8d" + b"\xff" * 8 + b".", {}))

    def test_damage_anywhere_is_refused_or_harmless(self):
        whole = (GOLDEN / "omnijet_tokenizer.ckpt").read_bytes()
        names = set(program.read_state(GOLDEN / "omnijet_tokenizer.ckpt"))
        rng, refused = random.Random(3), 0
        for trial in range(300):
            bad = bytearray(whole)
            if trial % 3 == 0:
                del bad[rng.randrange(len(bad)):]
            for _ in range(1 + trial % 4):
                at = rng.randrange(len(bad)) if rng.random() < 0.3 else rng.randrange(min(len(bad), 6000))
                bad[at:at + 1] = bytes([rng.randrange(256)])
            self.source.write_bytes(bad)
            try:
                program.convert(str(self.source), str(self.destination))
                self.assertLessEqual(len(tensors_of(self.destination)), len(names) + 4)
            except program.Refused as error:
                self.assertEqual(error.code, 65)
                refused += 1
        self.assertGreater(refused, 200)

    def test_other_exit_codes(self):
        done = self.run_program(self.folder / "nowhere.ckpt")
        self.assertEqual(done.returncode, 66)
        done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True)
        self.assertEqual(done.returncode, 64)
        self.destination = self.folder / "no" / "such" / "folder"
        self.assertEqual(self.run_program(GOLDEN / "omnijet_tokenizer.ckpt").returncode, 74)


if __name__ == "__main__":
    unittest.main()
