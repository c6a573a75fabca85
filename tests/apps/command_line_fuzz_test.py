#!/usr/bin/env python3
"""Damaged and hostile files through the command line, thousands for each reader.

    command_line_fuzz_test.py [--mutants N] [--reader NAME] [--one INDEX] [--jobs N]

A mutant is made by one to three edits of a good file; its reader and index are the seed, so --reader NAME --one INDEX
makes it again, runs it and leaves it in the working directory. Each must end within 20 s with exit code 0, 64, 65 or
66, by no signal, with at most three lines on stderr and no traceback. Where it ends with 0, what was read must be what
the original holds, or what an independent reading of the mutant says, or the mutant's class is listed in UNPROTECTED.

Readers: hdf5 (inspect --write-manifest), model (safetensors and config.json of a stored model through
inspect and evaluate), manifest (manifest.json through inspect), toml (generate --dry-run -c FILE), hepmc (simulate
--file). Exit status 77 = libraries are missing. The executable is in TESSERA_EXECUTABLE.
"""
import argparse
import json
import multiprocessing.pool
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

try:
    import h5py
    import numpy as np
    import xxhash
except ImportError as error:
    print(f"SKIPPED: {error} (pip install -r apps/python/requirements.txt)")
    sys.exit(77)
try:
    import tomllib
except ImportError:
    print("SKIPPED: tomllib needs Python 3.11")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESSERA = os.environ.get("TESSERA_EXECUTABLE", os.path.join(ROOT, "build", "dev", "tessera"))
SECONDS = 20
CODES = (0, 64, 65, 66)

# Mutants that may be read as something else than the original, since nothing in the file could tell.
UNPROTECTED = {
    "model": "config.json or a weight was changed, and MANIFEST.json, which has their hashes, was made again to fit",
    "manifest of version 1": "version 1 has no hash of its content",
    "hepmc": "HepMC3 text has no checksum: another number is another event",
}

NUMBERS = [b"0", b"-1", b"1", b"nan", b"NaN", b"inf", b"-inf", b"1e400", b"1e308", b"-1e308", b"1e-320", b"2147483648", b"-2147483649",
           b"9223372036854775807", b"18446744073709551616", b"99999999999999999999999", b"0x7fffffff", b"1_000", b"007", b"1e", b"--1", b"+5", b"1.5"]
PIECES = [b"{", b"}", b"[", b"]", b",", b":", b"\"", b"'", b"\\", b"\n", b"\r", b"=", b"#", b"'''", b"\"\"\"", b"\\u0000", b"\\ud800", b"null", b"true",
          b"\xc3\x28", b"\xff\xfe", b"\0", b"\xf0\x9f\x92\xa9", b"../../x", b"[[a]]\n", b"[a.b]\n", b"a.b.c = 1\n", b"1979-05-27", b"P 1 0 11 ", b"\nE 0 1 1\n",
          b"\nV -1 0 [1,2,3]\n", b"\nA 0 GenCrossSection 1\n", b"\nU MEV CM\n", b"[" * 100000, b"{\"a\":" * 50000, b"(" * 1000, b" " * 100000, b"x" * 70000]


# ---- edits ----

def place(rng, data):
    return rng.randrange(len(data) + 1)


def flip_bits(rng, data):
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def random_run(rng, data):
    at, size = place(rng, data), rng.choice((1, 2, 4, 8, 16, 64))
    data[at:at + size] = rng.randbytes(size)


def zero_run(rng, data):
    at, size = place(rng, data), rng.choice((1, 4, 8, 64, 512, 4096))
    size = min(size, len(data) - at)
    data[at:at + size] = bytes(size)


def truncate(rng, data):
    del data[place(rng, data):]


def repeat(rng, data):
    at, size = place(rng, data), rng.choice((1, 8, 64, 512, 4096))
    data[at:at] = data[at:at + size]


def splice(rng, data):
    at, to, size = place(rng, data), place(rng, data), rng.choice((1, 8, 64, 512))
    piece = data[at:at + size]
    data[to:to + len(piece)] = piece


def erase(rng, data):
    at = place(rng, data)
    del data[at:at + rng.choice((1, 2, 8, 64, 1024))]


def extreme_integer(rng, data):
    width = rng.choice((1, 2, 4, 8))
    at = place(rng, data)
    if at + width <= len(data):
        value = rng.choice((0, 1, 2**(8 * width) - 1, 2**(8 * width - 1), 2**(8 * width - 1) - 1, 2**(4 * width)))
        data[at:at + width] = value.to_bytes(width, "little")


def insert_piece(rng, data):
    at = place(rng, data)
    data[at:at] = rng.choice(PIECES)


def digits_from(data, at):
    """Where the next run of digits is."""
    while at < len(data) and not 48 <= data[at] < 58:
        at += 1
    end = at
    while end < len(data) and (48 <= data[end] < 58 or data[end] in b".e+-"):
        end += 1
    return at, end


def other_number(rng, data):
    at, end = digits_from(data, place(rng, data))
    if at < end:
        data[at:end] = rng.choice(NUMBERS)


def edit_tokens(rng, data):
    """Deletes, doubles or swaps words of a text."""
    words = bytes(data).split(b" ")
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    kind = rng.randrange(3)
    if kind == 0:
        del words[i]
    elif kind == 1:
        words.insert(i, words[i])
    else:
        words[i], words[j] = words[j], words[i]
    data[:] = b" ".join(words)


def edit_lines(rng, data):
    lines = bytes(data).split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines.insert(j, lines[i])
    else:
        lines[i], lines[j] = lines[j], lines[i]
    data[:] = b"\n".join(lines)


BINARY = (flip_bits, flip_bits, flip_bits, random_run, zero_run, truncate, repeat, splice, erase, extreme_integer, extreme_integer)
TEXT = (flip_bits, random_run, truncate, repeat, splice, erase, insert_piece, other_number, other_number, edit_tokens, edit_lines)


def mutated(rng, original, edits):
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(edits)(rng, data)
    return bytes(data)


# ---- running ----

class Fault(Exception):
    """What a mutant made the program do that it must not."""


def run(*arguments, codes=CODES):
    """Exit code, stdout; throws Fault."""
    try:
        done = subprocess.run([TESSERA, *arguments], cwd=ROOT, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Fault(f"{arguments[0]}: more than {SECONDS} s") from None
    text = done.stderr.decode(errors="replace")
    if done.returncode not in codes:
        raise Fault(f"{arguments[0]}: exit code {done.returncode}: {text[:500]}")
    if done.returncode != 0 and not (1 <= text.count("\n") <= 3 and len(text) < 6000):
        raise Fault(f"{arguments[0]}: expected one clear line, got {text[:500]!r}")
    if "Traceback" in text or "internal error" in text:
        raise Fault(f"{arguments[0]}: {text[:500]}")
    return done.returncode, done.stdout.decode(errors="replace")


def expect(good, message):
    if not good:
        raise Fault(message)


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def columns_of(path, names=()):
    """The bytes of the columns of these names, or of all: a mutant's listing may be damaged where no reader of ours looks."""
    with h5py.File(path) as file:
        found = list(names)
        if not names:
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return {name: file[name][...].tobytes() for name in found}


class Hdf5:
    """A native file, which the verb that lists a folder reads in a child: the HDF5 library may crash there."""
    name, suffix = "hdf5", "h5"

    def __init__(self, folder):
        self.original = read(os.path.join(ROOT, "tests", "fixtures", "fu_tau_re.h5"))
        self.columns = columns_of(os.path.join(ROOT, "tests", "fixtures", "fu_tau_re.h5"))

    def mutant(self, rng, index):
        # half of them in the metadata, which is checked by parsing; the rest is data under checksums
        if rng.random() < 0.5:
            return mutated(rng, self.original, BINARY)
        size = 6000
        at = rng.choice((0, len(self.original) - size))
        return self.original[:at] + mutated(rng, self.original[at:at + size], BINARY) + self.original[at + size:]

    def check(self, folder, index, mutant):
        path = os.path.join(folder, "a-test.h5")
        write(path, mutant)
        code, _ = run("inspect", "--write-manifest", folder)
        if code == 0:
            with open(os.path.join(folder, "manifest.json")) as file:
                entry = json.load(file)["splits"]["test"][0]
            expect(entry["xxh3_128"] == xxhash.xxh3_128(mutant).hexdigest(), "the manifest has another hash than the file")
            expect(columns_of(path, self.columns) == self.columns, "a changed column was accepted")


class Model:
    """A fine-tuned model, with its manifest made again to fit (so that the parsers are reached) or as it was."""
    name, suffix = "model", "bin"

    def __init__(self, folder):
        self.data = os.path.join(folder, "data")
        os.mkdir(self.data)
        shutil.copy(os.path.join(ROOT, "tests", "fixtures", "fu_tau_re.h5"), os.path.join(self.data, "a-test.h5"))
        run("inspect", "--write-manifest", self.data, codes=(0,))
        rundir = os.path.join(folder, "run")
        self.train(rundir)
        found = [d for d, _, files in os.walk(rundir) if "MANIFEST.json" in files and "tau-id__tessera" in d]
        expect(found, "no fine-tuned model was made")
        self.model = found[0]
        self.files = {n: read(os.path.join(self.model, n)) for n in ("config.json", "model.safetensors", "MANIFEST.json")}

    def train(self, rundir):
        settings = {"run.directory": rundir, "data.unlabelled": "jets", "finetune.tasks": "tau-id", "finetune.methods": "deepsets",
                    "finetune.strategies": "scratch", "finetune.seeds": 1, "finetune.train_jets": 50, "finetune.evaluations": 1, "pretrain.warmup": 1,
                    **dict.fromkeys(("tokenizer.width", "backbone.width", "tokenizer.batch", "pretrain.batch", "finetune.batch"), 8),
                    **dict.fromkeys(("tokenizer.heads", "backbone.heads", "backbone.blocks"), 1), "tokenizer.codes": 16, "tokenizer.latent": 2,
                    **dict.fromkeys(("tokenizer.steps", "pretrain.steps", "finetune.steps"), 10)}
        for verb in ("train-tokenizer", "pretrain", "finetune"):
            run(verb, "--quiet", "-c", "tiny", *(f"{k}={v}" for k, v in settings.items()), codes=(0,))

    def mutant(self, rng, index):
        """(file, content)"""
        file = ("config.json", "model.safetensors")[index // 2 % 2]
        content = self.files[file]
        if file == "config.json":
            return file, mutated(rng, content, TEXT)
        end = 8 + int.from_bytes(content[:8], "little")
        if rng.random() < 0.7:  # the header, which is JSON behind its length
            return file, content[:8] + mutated(rng, content[8:end], TEXT) + content[end:]
        return file, mutated(rng, content, BINARY)

    def manifest_for(self, files):
        """As train/checkpoint.cpp writes it."""
        entries = [{"name": n, "bytes": len(files[n]), "xxh3_128": xxhash.xxh3_128(files[n]).hexdigest()}
                   for n in ("config.json", "model.safetensors")]
        content = {"format": "tessera-checkpoint", "version": 1, "step": 0, "files": entries}
        content["self"] = xxhash.xxh3_128(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
        return (json.dumps(content, indent=1) + "\n").encode()

    def check(self, folder, index, mutant):
        name, content = mutant
        forged = index % 8 < 6
        files = {**self.files, name: content}
        if forged:
            files["MANIFEST.json"] = self.manifest_for(files)
        for n, c in files.items():
            write(os.path.join(folder, n), c)
        code, _ = run("evaluate", folder, self.data) if index % 2 else run("inspect", folder)
        if code == 0 and not forged:
            expect(content == self.files[name], f"{name} was changed, and its hash was not asked for")
        assert "model" in UNPROTECTED


def as_floats(value):
    """The same JSON with every number as a float, as a reader without arbitrarily large integers has it."""
    if isinstance(value, dict):
        return {k: as_floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_floats(v) for v in value]
    return float(value) if type(value) is int else value


class Manifest:
    name, suffix = "manifest", "json"

    def __init__(self, folder):
        made = os.path.join(folder, "manifest-of")
        os.mkdir(made)
        shutil.copy(os.path.join(ROOT, "tests", "fixtures", "fu_tau_re.h5"), os.path.join(made, "a-test.h5"))
        expect(run("inspect", "--write-manifest", made)[0] == 0, "no manifest was made")
        self.original = read(os.path.join(made, "manifest.json"))
        version1 = json.loads(self.original)
        version1["version"] = 1
        del version1["self"]
        self.version1 = json.dumps(version1, indent=1).encode()

    def mutant(self, rng, index):
        return mutated(rng, self.version1 if index % 2 else self.original, TEXT)

    def check(self, folder, index, mutant):
        write(os.path.join(folder, "manifest.json"), mutant)
        code, out = run("inspect", folder, "--json")
        if code == 0 and index % 2 == 0:
            expect(mutant == self.original or json.loads(mutant).get("version") == 1, "a changed manifest was accepted")
        if code == 0:
            expect(as_floats(json.loads(out)) == as_floats(json.loads(mutant)), "another manifest was printed than was read")
        assert "manifest of version 1" in UNPROTECTED


class Toml:
    name, suffix = "toml", "toml"

    def __init__(self, folder):
        self.original = read(os.path.join(ROOT, "apps", "presets", "tiny.toml"))
        self.defaults = self.resolved(self.printed(self.original, folder)[1])

    def printed(self, content, folder):
        path = os.path.join(folder, "run.toml")
        write(path, content)
        return run("generate", "--dry-run", "-c", path)

    def resolved(self, out):
        """The configuration that --dry-run prints, by dotted name; what follows it is no TOML."""
        text = "\n".join(line for line in out.splitlines() if line.startswith("[") or " = " in line)
        return self.leaves(tomllib.loads(text))

    def leaves(self, table, prefix=""):
        flat = {}
        for key, value in table.items():
            flat.update(self.leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
        return flat

    def mutant(self, rng, index):
        return mutated(rng, self.original, TEXT)

    def check(self, folder, index, mutant):
        code, out = self.printed(mutant, folder)
        if code != 0:
            return
        try:
            wanted = self.leaves(tomllib.loads(mutant.decode()))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise Fault(f"accepted what another parser refuses: {error}") from None
        got = self.resolved(out)
        for key, value in wanted.items():
            same = got.get(key) in (value, [value], value and [value]) or type(value) is float and np.float32(got.get(key)) == np.float32(value)
            expect(same, f"{key}: expected {value!r}, got {got.get(key)!r}")


class HepMc:
    """A file of a few events; its jets are compared where no word of the text was changed."""
    name, suffix = "hepmc", "hepmc"

    def __init__(self, folder):
        self.original = hepmc_text(os.path.join(ROOT, "tests", "fixtures", "ee_tautau.particles"), 3)
        code, _, self.columns = self.jets(folder, self.original)
        expect(code == 0, "the good file was refused")

    def jets(self, folder, content):
        source, out = os.path.join(folder, "x.hepmc"), os.path.join(folder, "out.h5")
        write(source, content)
        code, text = run("simulate", "--file", source, "--source", "21:0:2", "--output", out)
        return code, text, columns_of(out) if code == 0 else None

    def mutant(self, rng, index):
        return mutated(rng, self.original, TEXT)

    def check(self, folder, index, mutant):
        code, _, columns = self.jets(folder, mutant)
        if code == 0:
            values = np.frombuffer(columns["jet/pt"], "<f4")
            expect(len(values) == 2 and np.isfinite(values).all(), "jets without a finite momentum")
            if mutant.split() == self.original.split():
                expect(columns == self.columns, "the same words gave other jets")
        assert "hepmc" in UNPROTECTED


def hepmc_text(path, events):
    """The first events of a particle stream as HepMC3 ASCII, with the attributes that generators write."""
    import struct
    stream = read(path)
    at = 16 + struct.unpack_from("<II", stream, 8)[1]
    n, m = struct.unpack_from("<II", stream, at + 4)
    counts = np.frombuffer(stream, "<u4", n, at + 36 + 8 * n)
    integers = np.frombuffer(stream, "<i4", 5 * m, at + 36 + 12 * n).reshape(5, m)
    floats = np.frombuffer(stream, "<f8", 8 * m, at + 36 + 12 * n + 20 * m).reshape(8, m)
    lines = ["HepMC::Version 3.01.02", "HepMC::Asciiv3-START_EVENT_LISTING", "W Weight", "T Pythia\\|8\\|"]
    begin = 0
    for event in range(min(events, n)):
        rows = range(begin, begin + counts[event])
        begin += counts[event]
        mothers = {integers[2][i] for i in rows if integers[2][i] >= 0}
        lines += [f"E {event} {len(mothers)} {len(rows)}", "U GEV MM", "W 1.0", "A 0 GenCrossSection 1.5e+02 1.0e+00 3 3",
                  "A 0 GenPdfInfo 11 -11 0.5 0.5 100 1 1 0 0", "A 0 event_scale 91.2"]
        for i in rows:
            px, py, pz, e, mass = floats[:5, i]
            status = 1 if integers[1][i] > 0 else 2
            lines.append(f"P {i - rows[0] + 1} {integers[2][i] + 1} {integers[0][i]} {px:.16e} {py:.16e} {pz:.16e} {e:.16e} {mass:.16e} {status}")
    return ("\n".join(lines) + "\nHepMC::Asciiv3-END_EVENT_LISTING\n\n").encode()


READERS = {r.name: r for r in (Hdf5, Model, Manifest, Toml, HepMc)}


def attempt(reader, base, index):
    """None, or what went wrong."""
    rng = random.Random(f"{reader.name} {index}")
    mutant = reader.mutant(rng, index)
    folder = tempfile.mkdtemp(dir=base)
    try:
        reader.check(folder, index, mutant)
    except Exception as error:
        kind = "" if isinstance(error, Fault) else f"{type(error).__name__}: "
        return f"--reader {reader.name} --one {index}: {kind}{error}"
    finally:
        shutil.rmtree(folder)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=3000, help="of each reader")
    parser.add_argument("--reader", choices=sorted(READERS), action="append", help="all if not given")
    parser.add_argument("--one", type=int, help="this mutant alone; it is left in the working directory")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small files that nobody needs on a disk
    faults = 0
    with tempfile.TemporaryDirectory(dir=memory) as base, multiprocessing.pool.ThreadPool(options.jobs) as pool:
        for name in options.reader or READERS:
            begin = time.monotonic()
            own = os.path.join(base, name)
            os.mkdir(own)
            reader = READERS[name](own)
            if options.one is not None:
                mutant = reader.mutant(random.Random(f"{name} {options.one}"), options.one)
                write(f"mutant.{reader.suffix}", mutant[1] if isinstance(mutant, tuple) else mutant)
            indices = range(options.mutants) if options.one is None else [options.one]
            found = [f for f in pool.imap_unordered(lambda i: attempt(reader, own, i), indices, 16) if f]
            print(f"{name}: {len(indices)} mutants, {len(found)} faults, {time.monotonic() - begin:.0f} s", flush=True)
            for fault in found[:20]:
                print("  " + fault, flush=True)
            faults += len(found)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
