#!/usr/bin/env python3
"""Converts public jet data into Tessera's native ragged HDF5 format.

  convert.py SOURCE DESTINATION --dataset jetclass     ROOT files of JetClass (Zenodo 6619768)
  convert.py SOURCE DESTINATION --dataset fu-tau-re    Parquet files of Fu-tau-re (Zenodo 12664633)

Columns are found by name, never by position. The source is read in pieces, so memory stays bounded. Momenta
and labels must be finite and in range, else the conversion stops with file, column and row. In Fu-tau-re the
fill value -1000 and in both non-finite numbers of track columns become NaN, "not measured", and are counted. The
result is written under a temporary name and renamed; an existing file is never overwritten.
"""

import hashlib
import json
import os
import sys

from program import EXIT_DATA, EXIT_IO, EXIT_MISSING, EXIT_USAGE, Parser, exit_code_of, publish, temporary_name, whole
from program import ProgramError as ConvertError

CLASSES = ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"]
ROW_CHUNK, CONSTITUENT_CHUNK = 16384, 65536
TYPE_NAMES = {"<i8": "i64", "<u8": "u64", "<i4": "i32", "<f4": "f32", "|i1": "i8", "|u1": "u8"}


def check(good, code, message):
    if not good:
        raise ConvertError(code, message)


class Piece:
    """Some consecutive jets of a source, with checks that name the file, column, jet and constituent at fault."""

    def __init__(self, np, source, first_row, counts):
        self.np, self.source, self.first_row, self.counts = np, source, first_row, counts
        self.ends, self.ragged = np.cumsum(counts), set()  # columns with one entry a constituent

    def fail(self, column, row, message, constituent=None):
        inside = "" if constituent is None else f", constituent {constituent}"
        raise ConvertError(EXIT_DATA, f"{self.source}: column '{column}', row {self.first_row + int(row)}{inside}: {message}")

    def expect(self, good, values, column, expected):
        """All of `good`, which has one entry a jet or one a constituent."""
        bad = self.np.flatnonzero(~good)
        if not len(bad):
            return
        i, got = int(bad[0]), f"expected {expected}, got {values[int(bad[0])]}"
        if column.split(".")[0].split(" ")[0] in self.ragged:
            row = int(self.np.searchsorted(self.ends, i, side="right"))
            self.fail(column, row, got, i - int(self.ends[row] - self.counts[row]))
        self.fail(column, i, got)

    def flat(self, ak, arrays, column):
        """The constituents of all jets behind each other; every jet must have its number of them and none is null."""
        array = arrays[column]
        self.ragged.add(column)
        check(getattr(array, "ndim", 1) == 2, EXIT_DATA, f"{self.source}: column '{column}': expected one list a jet, got {array.type}")
        none = self.np.flatnonzero(ak.to_numpy(ak.is_none(array)))
        if len(none):
            self.fail(column, none[0], "expected a list, got null")
        lengths = ak.to_numpy(ak.num(array))
        bad = self.np.flatnonzero(lengths != self.counts)
        if len(bad):
            self.fail(column, bad[0], f"expected {self.counts[bad[0]]} constituents, got {lengths[bad[0]]}")
        return ak.flatten(array)

    def numbers(self, ak, array, column):
        """A flat array as numpy; null entries are refused."""
        none = ak.to_numpy(ak.is_none(array))
        self.expect(~none, ["null"] * len(none), column, "a number")
        try:
            values = ak.to_numpy(ak.drop_none(array), allow_missing=False)
        except Exception as error:
            raise ConvertError(EXIT_DATA, f"{self.source}: column '{column}': expected numbers, got {array.type}") from error
        check(values.ndim == 1 and values.dtype.kind in "biuf", EXIT_DATA,
              f"{self.source}: column '{column}': expected numbers, got {array.type}")
        return values

    def to_f32(self, values, column):
        """Checked conversion to f32: finite before and after."""
        self.expect(self.np.isfinite(values), values, column, "a finite number")
        with self.np.errstate(over="ignore"):
            out = self.np.asarray(values).astype("<f4")
        self.expect(self.np.isfinite(out), values, column, "a number within f32")
        return out

    def energy(self, values, column):
        out = self.to_f32(values, column)
        self.expect(out >= 0, values, column, "an energy of at least 0")
        return out

    def to_integer(self, values, dtype, column, low, high):
        """Checked conversion of integers, booleans or whole floats."""
        values = self.np.asarray(values)
        numbers = values.astype("f8")
        with self.np.errstate(invalid="ignore"):
            good = self.np.isfinite(numbers) & (numbers == self.np.round(numbers)) & (numbers >= low) & (numbers <= high)
        self.expect(good, values, column, f"a whole number in [{low}, {high}]")
        return numbers.astype(dtype)

    def track(self, values, report, column, fill=None):
        """Non-finite entries, and those of the fill value, are "not measured": NaN, and counted."""
        with self.np.errstate(over="ignore"):
            out = self.np.asarray(values, "f8").astype("<f4")
        missing = ~self.np.isfinite(out) | (False if fill is None else out == fill)
        report["replaced"][column] = report["replaced"].get(column, 0) + int(missing.sum())
        out[missing] = self.np.nan
        return out

    def one_hot(self, columns, names, allow_none):
        """Index of the one name that is set; -1 where none is and that is allowed. Values must be 0 or 1."""
        table = self.np.stack([self.to_integer(columns[n], "i8", n, 0, 1) for n in names])
        total = table.sum(axis=0)
        good = (total <= 1) & (allow_none | (total == 1))
        self.expect(good, total, f"{names[0]} .. {names[-1]}", "one of them to be 1")
        return self.np.where(total == 1, table.argmax(axis=0), -1)


class DiskFile:
    """A file that h5py writes and that never fails it: HDF5 ends a process by a signal when it could not write all. The
    first error is kept in `error`; what comes after it is dropped."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.error, self.position, self.size = None, 0, 0

    def attempt(self, call, *arguments):
        if self.error is None:
            try:
                return call(self.descriptor, *arguments)
            except OSError as error:
                self.error = error
        return 0

    def seek(self, offset, whence=os.SEEK_SET):
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        return self.position

    def tell(self):
        return self.position

    def readinto(self, buffer):
        view, done = memoryview(buffer), 0
        while done < len(view) and (n := self.attempt(os.preadv, [view[done:]], self.position)) > 0:
            self.position, done = self.position + n, done + n
        view[done:] = bytes(len(view) - done)
        return len(view)

    def read(self, count=-1):
        buffer = bytearray(self.size - self.position if count < 0 else count)
        self.readinto(buffer)
        return bytes(buffer)

    def write(self, data):
        view, start = memoryview(data), self.position
        while self.position < start + len(view) and (n := self.attempt(os.pwrite, view[self.position - start:], self.position)) > 0:
            self.position += n
        self.position = start + len(view)
        self.size = max(self.size, self.position)
        return len(view)

    def truncate(self, size=None):
        self.size = self.position if size is None else size
        self.attempt(os.ftruncate, self.size)
        return self.size

    def flush(self):
        pass


class NativeWriter:
    """Appends pieces of columns to a native file; the rules are those of train/native_writer.cpp."""

    def __init__(self, path, first_id):
        import h5py
        import numpy as np
        self.np, self.path, self.temporary, self.first_id = np, path, temporary_name(path), first_id
        check(not os.path.exists(path), EXIT_IO, f"{path}: exists; it is not overwritten")
        try:
            self.disk = DiskFile(self.temporary)
        except OSError as error:
            raise self.failed(error) from error
        self.file = h5py.File(self.disk, "w", libver=("v110", "v110"))
        self.n = self.m = 0
        self._append("offsets", np.zeros(1, "<i8"))

    def _append(self, name, values):
        if name not in self.file:
            chunk = CONSTITUENT_CHUNK if name.startswith("pf/") else ROW_CHUNK
            self.file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=values.dtype,
                                     shuffle=True, compression="gzip", compression_opts=1, fletcher32=True,
                                     track_times=False)
        dataset = self.file[name]
        old = dataset.shape[0]
        dataset.resize((old + len(values),))
        if len(values):
            dataset[old:] = values
        self.check_disk()

    def append(self, counts, columns):
        np = self.np
        columns["id"] = (self.first_id + self.n + np.arange(len(counts), dtype="<u8")).astype("<u8")
        self._append("offsets", self.m + np.cumsum(counts, dtype="<i8"))
        for name in sorted(columns):
            want = int(counts.sum()) if name.startswith("pf/") else len(counts)
            check(len(columns[name]) == want, EXIT_DATA, f"column '{name}': expected {want} entries, got {len(columns[name])}")
            self._append(name, columns[name])
        self.n, self.m = self.n + len(counts), self.m + int(counts.sum())

    def content_hash(self):
        import h5py
        import xxhash
        names = []
        self.file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        digest = xxhash.xxh3_128()
        for name in sorted(names):
            data = self.file[name]
            digest.update(f"{name} {TYPE_NAMES[data.dtype.str]} {data.shape[0]}\n".encode())
            digest.update(data[...].tobytes())
        return digest.hexdigest()

    def close(self, attributes, classes):
        np = self.np
        if classes and "label/class" in self.file:
            self.file["label/class"].attrs["classes"] = np.array(classes, "S")
        every = {"format": "tessera", "format_version": np.uint32(1), "kind": "jets", "frame": "lab", "n": np.int64(self.n),
                 "m": np.int64(self.m), "mantissa_bits": np.int64(23), "content_xxh3": self.content_hash(), **attributes}
        for name in sorted(every):
            value = every[name]
            self.file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        self.file.close()
        self.check_disk()
        try:
            publish(self.disk.descriptor, self.temporary, self.path)
        except OSError as error:
            if os.path.exists(self.path):  # it has its name, and perhaps not after a power loss
                os.remove(self.path)
            raise self.failed(error) from error

    def failed(self, error):
        """What to raise where the destination, not the source, is at fault."""
        return ConvertError(EXIT_IO, f"{self.path}: cannot be written: {error.strerror} (errno {error.errno})")

    def check_disk(self):
        if self.disk.error is not None:
            raise self.failed(self.disk.error) from self.disk.error

    def abandon(self):
        """Leaves no file behind. Throws if the destination was at fault."""
        try:
            self.file.close()
        finally:
            if os.path.exists(self.temporary):
                os.remove(self.temporary)
            self.check_disk()


# ---- JetClass ----

JETCLASS_PARTICLES = {"pf/px": "part_px", "pf/py": "part_py", "pf/pz": "part_pz", "pf/energy": "part_energy",
                      "pf/d0": "part_d0val", "pf/d0err": "part_d0err", "pf/dz": "part_dzval", "pf/dzerr": "part_dzerr"}
JETCLASS_KINDS = ["ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"]  # pid 1..5
JETCLASS_JETS = {**{f"jet/{k}": f"jet_{k}" for k in ("pt", "eta", "phi", "energy", "sdmass", "tau1", "tau2", "tau3", "tau4")},
                 **{f"truth/genpart_{k}": f"aux_genpart_{k}" for k in ("pt", "eta", "phi")}}
JETCLASS_INTEGERS = {"truth/genpart_pid": "aux_genpart_pid", "truth/gen_match": "aux_truth_match"}


def convert_jetclass(source, writer, report, options):
    import awkward as ak
    import uproot
    np = writer.np
    with uproot.open(source) as root:
        check("tree" in root, EXIT_DATA, f"{source}: expected a TTree named 'tree', found {root.keys()[:5]}")
        tree = root["tree"]
        present = set(tree.keys())
        kinds = [f"part_is{k}" for k in JETCLASS_KINDS]
        labels = [f"label_{c}" for c in CLASSES]
        needed = [*JETCLASS_PARTICLES.values(), "part_charge", *kinds, *labels, "jet_pt", "jet_eta", "jet_phi", "jet_energy"]
        missing = [n for n in needed if n not in present]
        check(not missing, EXIT_DATA, f"{source}: tree 'tree' lacks the branches {missing}")
        optional = {k: v for k, v in {**JETCLASS_JETS, **JETCLASS_INTEGERS}.items() if v in present}
        branches = sorted({*needed, *optional.values()})
        # a tree without jets gives one empty piece, so that the native file has its columns
        pieces = tree.iterate(branches, step_size=options.rows) if tree.num_entries else [tree.arrays(branches)]
        for arrays in pieces:
            first = arrays["part_px"]
            check(first.ndim == 2, EXIT_DATA, f"{source}: column 'part_px': expected one list a jet, got {first.type}")
            piece = Piece(np, source, report["in"], ak.to_numpy(ak.num(first)).astype("<i8"))
            ragged = [*JETCLASS_PARTICLES.values(), "part_charge", *kinds]
            flat = {n: piece.numbers(ak, piece.flat(ak, arrays, n), n) for n in ragged}
            rows = {n: piece.numbers(ak, arrays[n], n) for n in branches if n not in flat}
            columns = {k: piece.to_f32(flat[v], v) for k, v in JETCLASS_PARTICLES.items() if not k.startswith("pf/d")}
            columns["pf/energy"] = piece.energy(flat["part_energy"], "part_energy")
            columns.update({k: piece.track(flat[v], report, v) for k, v in JETCLASS_PARTICLES.items() if k.startswith("pf/d")})
            columns["pf/charge"] = piece.to_integer(flat["part_charge"], "i1", "part_charge", -3, 3)
            columns["pf/pid"] = (piece.one_hot(flat, kinds, True) + 1).astype("i1")
            columns["label/class"] = piece.one_hot(rows, labels, False).astype("u1")
            for k, v in optional.items():
                if k in JETCLASS_INTEGERS:
                    columns[k] = piece.to_integer(rows[v], "<i4", v, -2**31, 2**31 - 1)
                else:
                    columns[k] = piece.to_f32(rows[v], v)
            writer.append(piece.counts, columns)
            report["in"] += len(piece.counts)
    return {"order": "source", "licence": "CC-BY-4.0", "simulated": np.int64(1)}, CLASSES


# ---- Fu-tau-re ----

TAU_KINDS = {211: 1, 130: 2, 22: 3, 11: 4, 13: 5}
TAU_FILL = -1000  # of track columns of neutrals
TAU_TRACKS = {"pf/d0": "reco_cand_dxy", "pf/dz": "reco_cand_dz", "pf/d0err": "reco_cand_dxy_err", "pf/dzerr": "reco_cand_dz_err"}


def four_vector(np, ak, piece, record, column):
    """(px, py, pz, energy, mass) of a record {x, y, z, tau | t}: tau is the mass, t the energy."""
    fields = set(record.fields)
    check({"x", "y", "z"} <= fields and fields & {"t", "tau"}, EXIT_DATA,
          f"{piece.source}: column '{column}': expected fields x, y, z and t or tau, got {sorted(fields)}")

    def get(name, convert=piece.to_f32):
        return convert(piece.numbers(ak, record[name], f"{column}.{name}"), f"{column}.{name}").astype("f8")

    x, y, z = get("x"), get("y"), get("z")
    p2 = x * x + y * y + z * z
    if "tau" in fields:
        mass = get("tau")
        return x, y, z, np.sqrt(p2 + np.maximum(mass, 0) ** 2), mass
    energy = get("t", piece.energy)
    return x, y, z, energy, np.sqrt(np.maximum(energy ** 2 - p2, 0))


def fu_tau_re_columns(np, ak, piece, arrays, names, report):
    rows = lambda n: piece.numbers(ak, arrays[n], n)
    flat = lambda n: piece.numbers(ak, piece.flat(ak, arrays, n), n)
    charge = flat("reco_cand_charge")
    x, y, z, energy, mass = four_vector(np, ak, piece, piece.flat(ak, arrays, "reco_cand_p4s"), "reco_cand_p4s")
    columns = {"pf/px": x, "pf/py": y, "pf/pz": z, "pf/energy": energy, "pf/mass": mass}
    jx, jy, jz, je, _ = four_vector(np, ak, piece, arrays["reco_jet_p4s"], "reco_jet_p4s")
    jpt = np.hypot(jx, jy)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns.update({"jet/pt": jpt, "jet/eta": np.arcsinh(jz / jpt), "jet/phi": np.arctan2(jy, jx), "jet/energy": je})
    piece.expect(np.isfinite(columns["jet/eta"]), jpt, "reco_jet_p4s", "a transverse momentum above 0")
    for prefix, column in (("truth/gen_", "gen_jet_p4s"), ("truth/vis_", "gen_jet_tau_p4s")):
        for k, v in zip(("px", "py", "pz", "energy"), four_vector(np, ak, piece, arrays[column], column)):
            columns[prefix + k] = v
    columns = {k: piece.to_f32(v, k) for k, v in columns.items()}
    columns["pf/charge"] = piece.to_integer(charge, "i1", "reco_cand_charge", -3, 3)
    pdg = np.abs(piece.to_integer(flat("reco_cand_pdg"), "i8", "reco_cand_pdg", -2**31, 2**31 - 1))
    columns["pf/pid"] = sum((np.where(pdg == k, v, 0) for k, v in TAU_KINDS.items()), np.zeros(len(pdg), "i8")).astype("i1")
    report["unknown pdg"] = report.get("unknown pdg", 0) + int((columns["pf/pid"] == 0).sum())
    for k, v in TAU_TRACKS.items():
        values = ak.fill_none(piece.flat(ak, arrays, v), np.nan)
        columns[k] = piece.track(piece.numbers(ak, values, v), report, v, TAU_FILL)
    columns["label/tau_dm"] = piece.to_integer(rows("gen_jet_tau_decaymode"), "i1", "gen_jet_tau_decaymode", -1, 16)
    if "weight" in names:
        columns["weight"] = piece.to_f32(rows("weight"), "weight")
    return columns


def convert_fu_tau_re(source, writer, report, options):
    import awkward as ak
    import pyarrow as pa
    import pyarrow.parquet as pq
    np = writer.np
    parquet = pq.ParquetFile(source, page_checksum_verification=True)  # of pages that carry a checksum
    present = set(parquet.schema_arrow.names)
    needed = ["reco_cand_p4s", "reco_cand_charge", "reco_cand_pdg", *TAU_TRACKS.values(), "reco_jet_p4s",
              "gen_jet_p4s", "gen_jet_tau_p4s", "gen_jet_tau_decaymode"]
    missing = [n for n in needed if n not in present]
    check(not missing, EXIT_DATA, f"{source}: lacks the columns {missing}")
    names = needed + (["weight"] if "weight" in present else [])
    # a file without jets gives one empty piece, so that the native file has its columns
    empty = pa.Table.from_batches([], parquet.schema_arrow).select(names)
    pieces = parquet.iter_batches(batch_size=options.rows, columns=names) if parquet.metadata.num_rows else [empty]
    for batch in pieces:
        arrays = ak.from_arrow(batch)
        charge = arrays["reco_cand_charge"]
        check(charge.ndim == 2, EXIT_DATA, f"{source}: column 'reco_cand_charge': expected one list a jet, got {charge.type}")
        counts = ak.to_numpy(ak.fill_none(ak.num(charge), 0)).astype("<i8")
        piece = Piece(np, source, report["in"], counts)
        writer.append(counts, fu_tau_re_columns(np, ak, piece, arrays, names, report))
        report["in"] += len(counts)
    return {"order": "source", "licence": "CC-BY-4.0", "simulated": np.int64(1)}, None


CONVERTERS = {"jetclass": convert_jetclass, "fu-tau-re": convert_fu_tau_re}


def digest_of(path, algorithm):
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_published(path, checksum):
    """Against the checksum that the publisher gives, since ROOT and Parquet files hold few of their own."""
    algorithm, _, want = checksum.partition(":")
    check(algorithm in ("md5", "sha256") and want, EXIT_USAGE, f"--checksum: expected md5:HEX or sha256:HEX, got '{checksum}'")
    got = digest_of(path, algorithm)
    check(got == want.lower(), EXIT_DATA, f"{path}: expected {algorithm} {want}, got {got}: the file is damaged or another one")


def convert(options):
    """Converts one file; returns the report that main() prints."""
    check(os.path.isfile(options.source), EXIT_MISSING, f"{options.source}: expected a file, got nothing there")
    if options.checksum:
        check_published(options.source, options.checksum)
    sha256 = digest_of(options.source, "sha256")
    # Jets of different files get different ids without anybody's book-keeping; the reader refuses an id that comes twice.
    writer = NativeWriter(options.destination, options.id_base if options.id_base is not None else int(sha256[:8], 16) << 32)
    report = {"in": 0, "dropped": {}, "replaced": {}}
    try:
        attributes, classes = CONVERTERS[options.dataset](options.source, writer, report, options)
        name = os.path.basename(options.source)
        attributes.update({"source": f"{options.dataset}; {name}; sha256 {sha256}",
                           "command": f"convert.py {name} {os.path.basename(options.destination)} --dataset {options.dataset}",
                           "tool_version": "0.1.0"})
        report.update({"out": writer.n, "constituents": writer.m})
        writer.close(attributes, classes)
    except ConvertError:
        writer.abandon()
        raise
    except Exception as error:  # a damaged file shows up as any of the libraries' own errors
        writer.abandon()
        line = " ".join(str(error).split())[:300]
        raise ConvertError(EXIT_DATA, f"{options.source}: cannot be read as {options.dataset}: {line}") from error
    return report


def parse(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--dataset", required=True, choices=sorted(CONVERTERS))
    parser.add_argument("--rows", type=whole(1, 10**9), default=20000, help="jets in memory at once")
    parser.add_argument("--id-base", type=whole(0, 2**63), help="first jet id (default: from the hash of the source)")
    parser.add_argument("--checksum", help="md5:HEX or sha256:HEX of the source as published")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(exit_code_of("convert.py", lambda: json.dumps(convert(parse()), sort_keys=True)))
