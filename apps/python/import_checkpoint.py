#!/usr/bin/env python3
"""Takes the weights out of a PyTorch checkpoint, without PyTorch: names and tensors of its state_dict as safetensors.

  import_checkpoint.py SOURCE.ckpt DESTINATION.safetensors

A checkpoint is a zip archive with a pickle, and a pickle is a program. This one is run by a reader that knows how to
make tensors, dictionaries and numbers; any other class or function that it names becomes an inert placeholder, so that
optimizer states and hyper-parameters, which hold whatever their authors imported, are dropped unread. Nothing is
allocated on the pickle's word: each tensor must lie within bytes that are there.

Exit codes: 0 done, 64 usage, 65 not such a checkpoint, 66 no such file, 74 the output cannot be written.
"""
import collections
import io
import json
import math
import os
import pickle
import struct
import sys
import zipfile

from program import EXIT_DATA, EXIT_MISSING, EXIT_USAGE, ProgramError as Refused, exit_code_of, write_durably

# PyTorch's storage class: (bytes of an element, dtype in safetensors). Half is widened, which is exact.
STORAGES = {"FloatStorage": (4, "F32"), "DoubleStorage": (8, "F64"), "BFloat16Storage": (2, "BF16"), "HalfStorage": (2, "F16"),
            "LongStorage": (8, "I64"), "IntStorage": (4, "I32"), "ByteStorage": (1, "U8"), "BoolStorage": (1, "U8")}
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1}


def expect(condition, message):
    if not condition:
        raise Refused(EXIT_DATA, message)


class Ignored:
    """Stands for any object of any class: takes what a pickle does to objects, and does nothing."""

    def __new__(cls, *arguments, **named):
        return super().__new__(cls)

    def __init__(self, *arguments, **named):
        pass

    def __call__(self, *arguments, **named):
        return Ignored()

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass

    def __setitem__(self, key, value):
        pass

    def __hash__(self):
        return id(self)


class Storage:
    def __init__(self, dtype, data):
        self.dtype, self.data, self.count = dtype, data, len(data) // WIDTHS[dtype]


class Tensor:
    """A view of a storage."""

    def __init__(self, storage, offset, shape, stride):
        whole = lambda values: isinstance(values, tuple) and all(type(v) is int and v >= 0 for v in values)
        expect(isinstance(storage, Storage) and type(offset) is int and whole(shape) and whole(stride) and len(shape) == len(stride)
               and len(shape) <= 6, f"expected a tensor's storage, offset, shape and strides, got {shape!r:.60} and {stride!r:.60}")
        count = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride))
        expect(count == 0 or 0 <= offset and last < storage.count and count <= storage.count,
               f"a tensor of shape {shape} does not lie within its {storage.count} elements")
        self.storage, self.offset, self.shape, self.stride, self.count = storage, offset, shape, stride, count

    def contiguous(self):
        wanted = 1
        for n, stride in zip(reversed(self.shape), reversed(self.stride)):
            if n != 1 and stride != wanted:
                return False
            wanted *= n
        return True

    def bytes(self):
        width = WIDTHS[self.storage.dtype]
        if self.contiguous() or self.count == 0:
            return self.storage.data[self.offset * width:(self.offset + self.count) * width]
        places = [self.offset]
        for n, stride in zip(self.shape, self.stride):
            places = [p + i * stride for p in places for i in range(n)]
        return b"".join(self.storage.data[p * width:(p + 1) * width] for p in places)


def rebuild_tensor(storage, offset, shape, stride, *_):
    return Tensor(storage, offset, shape, stride)


def rebuild_parameter(tensor, *_):
    return tensor


def ordered_dict(*arguments):
    """Of pairs, as older pickles have it."""
    return collections.OrderedDict(*arguments)


class Reader(pickle.Unpickler):
    def __init__(self, archive, prefix):
        super().__init__(io.BytesIO(archive.read(prefix + "data.pkl")))
        self.archive, self.prefix, self.storages = archive, prefix, {}

    def find_class(self, module, name):
        known = {("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor, ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
                 ("collections", "OrderedDict"): ordered_dict}
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return Ignored

    def persistent_load(self, key):
        """('storage', class, name of its file, device, number of elements)"""
        expect(isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage" and isinstance(key[2], str) and type(key[4]) is int,
               f"expected a reference to a storage, got {key!r:.80}")
        _, kind, name, _, count = key[:5]
        if not isinstance(kind, tuple):  # of a type that is none of ours; it matters only if the state holds it
            return Ignored()
        if name not in self.storages:
            data = self.member(name)
            expect(len(data) == count * kind[0], f"storage {name!r:.60}: expected {count} elements of {kind[0]} bytes, got {len(data)} bytes")
            self.storages[name] = Storage(kind[1], data)
        expect(self.storages[name].dtype == kind[1], f"storage {name!r:.60} is of two types")
        return self.storages[name]

    def member(self, name):
        try:
            return self.archive.read(f"{self.prefix}data/{name}")
        except KeyError:
            raise Refused(EXIT_DATA, f"storage {name!r:.60} is missing in the archive") from None


def check_archive(archive, size):
    """Members of a checkpoint are stored as they are: one that would inflate is no part of one."""
    for member in archive.infolist():
        expect(member.compress_type == zipfile.ZIP_STORED and member.file_size <= size,
               f"{member.filename!r:.60}: expected an uncompressed member, got one of {member.file_size} bytes in a file of {size}")
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"]
    expect(len(pickles) == 1, f"expected one data.pkl, got {len(pickles)}")
    prefix = pickles[0][:-len("data.pkl")]
    if prefix + "byteorder" in archive.namelist():
        order = archive.read(prefix + "byteorder")
        expect(order == b"little", f"expected little-endian numbers, got {order!r:.40}")
    return prefix


def read_state(path):
    """{name: Tensor} of the checkpoint's state_dict, or of the file itself where it is nothing else."""
    if not zipfile.is_zipfile(path):
        raise Refused(EXIT_DATA, "expected the zip archive that torch.save writes since PyTorch 1.6, got another file")
    with zipfile.ZipFile(path) as archive:
        content = Reader(archive, check_archive(archive, os.path.getsize(path))).load()
    expect(isinstance(content, dict), f"expected a dictionary, got {type(content).__name__}")
    state = content.get("state_dict", content)
    expect(isinstance(state, dict) and state, "expected a state_dict with weights, got none")
    for name, value in state.items():
        expect(isinstance(name, str) and isinstance(value, Tensor), f"state_dict: expected tensors by name, got {type(value).__name__} at {name!r:.80}")
    return state


def widened(tensor):
    """(dtype, bytes) as safetensors and our reader have them."""
    data = tensor.bytes()
    if tensor.storage.dtype != "F16":
        return tensor.storage.dtype, data
    return "F32", struct.pack(f"<{tensor.count}f", *struct.unpack(f"<{tensor.count}e", data))


def write_safetensors(path, state, metadata):
    """By falling width, then name: the same content gives the same bytes."""
    tensors = {name: (*widened(t), t.shape) for name, t in state.items()}
    order = sorted(tensors, key=lambda name: (-WIDTHS[tensors[name][0]], name))
    header, offset = {"__metadata__": metadata}, 0
    for name in order:
        dtype, data, shape = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_durably(path, b"".join([len(text).to_bytes(8, "little"), text, *(tensors[name][1] for name in order)]))


def checked_state(source):
    if not os.path.isfile(source):
        raise Refused(EXIT_MISSING, "no such file")
    try:
        return read_state(source)
    except Refused:
        raise
    except RecursionError:
        raise Refused(EXIT_DATA, "nested too deep") from None
    except MemoryError:
        raise Refused(EXIT_DATA, "asks for more memory than there is") from None
    except Exception as error:  # a damaged pickle or archive fails in a hundred ways
        raise Refused(EXIT_DATA, f"damaged: {type(error).__name__}: {error!s:.200}".replace("\n", " ")) from None


def convert(source, destination):
    try:
        state = checked_state(source)
    except Refused as error:
        raise Refused(error.code, f"{source}: {error}") from None
    write_safetensors(destination, state, {"source": os.path.basename(source)})


def main(arguments):
    if len(arguments) != 2:
        raise Refused(EXIT_USAGE, "usage: import_checkpoint.py SOURCE.ckpt DESTINATION.safetensors")
    convert(*arguments)


if __name__ == "__main__":
    sys.exit(exit_code_of("import_checkpoint.py", lambda: main(sys.argv[1:])))
