"""Awkward, damaged and hostile files through the command line: exit code 65 or 66 and a message that names
file, dataset and row. Files are written by the libraries that users write them with (h5py, uproot, pyarrow).
Exit status 77 = libraries are missing. The executable is in TESSERA_EXECUTABLE.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

try:
    import awkward as ak
    import h5py
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import uproot
    import xxhash  # noqa: F401
except ImportError as error:
    print(f"SKIPPED: {error} (pip install -r apps/python/requirements.txt)")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
TESSERA = os.environ["TESSERA_EXECUTABLE"]


class CommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def tessera(self, *arguments, code):
        done = subprocess.run([TESSERA, *arguments], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        return done.stderr

    def refused(self, code, arguments, *words):
        text = self.tessera(*arguments, code=code)
        for word in words:
            self.assertIn(word, text)
        self.assertNotIn("Traceback", text)
        self.assertLessEqual(text.count("\n"), 2, text)  # the converter's line and the verb's


NOTHING = object()


def largest_file(count):
    """Of the process and its children, in bytes; what goes beyond is an error, as with a quota."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


class NativeFiles(CommandLine):
    """The committed tau jets, written anew by h5py with one thing changed."""

    def setUp(self):
        super().setUp()
        with h5py.File(os.path.join(FIXTURES, "fu_tau_re.h5")) as file:
            self.columns, self.attributes = {}, dict(file.attrs)
            file.visititems(lambda n, item: self.columns.update({n: item[...]}) if isinstance(item, h5py.Dataset) else None)
        self.attributes.pop("content_xxh3")  # it holds for the unchanged columns
        self.count = 0

    def write(self, change=None, columns=None, attributes=None, storage=None):
        """`columns`, `attributes`: replaced, or removed if NOTHING; `change`: what is done to the open file at the end."""
        self.count += 1
        folder = self.path(str(self.count))
        os.mkdir(folder)
        every = {**self.columns, **(columns or {})}
        with h5py.File(os.path.join(folder, "a.h5"), "w", libver=("v110", "v110")) as file:
            for name, values in every.items():
                if values is not NOTHING:
                    how = {"fletcher32": True, "compression": "gzip", "shuffle": True, "maxshape": (None,) * np.ndim(values),
                           "chunks": (1000,) * np.ndim(values), **(storage or {}).get(name, {})}
                    file.create_dataset(name, data=values, **how) if np.ndim(values) else file.create_dataset(name, data=values)
            for name, value in {**self.attributes, **(attributes or {})}.items():
                if value is not NOTHING:
                    file.attrs[name] = value
            if change:
                change(file)
        return folder

    def bad(self, *words, **how):
        folder = self.write(**how)
        self.refused(65, ["inspect", "--write-manifest", folder], "a.h5", *words)
        self.assertFalse(os.path.exists(os.path.join(folder, "manifest.json")))

    def good(self, **how):
        folder = self.write(**how)
        self.tessera("inspect", "--write-manifest", folder, code=0)
        self.tessera("verify", folder, code=0)
        return folder

    def with_value(self, name, row, value, dtype=None):
        values = self.columns[name].astype(dtype or self.columns[name].dtype)
        values[row] = value
        return {"columns": {name: values}}

    def test_what_h5py_writes_by_another_choice_of_types_is_read(self):
        self.good()
        wide = {n: v.astype({"f": ">f8", "i": ">i8", "u": ">u8"}[v.dtype.kind]) for n, v in self.columns.items()}
        self.good(columns=wide)
        self.good(storage={n: {"compression": None, "shuffle": False} for n in self.columns})
        self.good(storage={n: {"chunks": (1,)} for n in ("offsets", "jet/pt")})
        self.good(columns={"pf/an_extra_column": np.zeros(1044, "f4"), "notes": np.zeros((3, 3))})

    def test_files_without_jets_or_with_empty_jets_are_read(self):
        none = {n: v[:0] for n, v in self.columns.items()}
        counts = {"n": np.int64(0), "m": np.int64(0)}
        self.good(columns={**none, "offsets": np.zeros(1, "i8")}, attributes=counts)
        empty = {n: v[:0] if n.startswith("pf/") else v for n, v in self.columns.items()}
        self.good(columns={**empty, "offsets": np.zeros(121, "i8")}, attributes={"m": np.int64(0)})

    def test_missing_and_misshapen_datasets_are_named(self):
        for name in ("offsets", "pf/px", "pf/pid", "id", "jet/eta"):
            self.bad(f"'{name}'", "expected a dataset, got none", columns={name: NOTHING})
        px = self.columns["pf/px"]
        self.bad("'pf/px'", "expected rank 1, got rank 2", columns={"pf/px": px[:, None]})
        self.bad("'pf/px'", "expected rank 1, got rank 2", columns={"pf/px": px[None, :]})
        self.bad("'pf/px'", "expected rank 1, got rank 0", columns={"pf/px": px[0]})
        for rows in (0, 1, 1043):
            self.bad("'pf/px'", f"expected 1044 rows, got {rows}", columns={"pf/px": px[:rows]})
        self.bad("'jet/pt'", "expected 120 rows, got 119", columns={"jet/pt": self.columns["jet/pt"][1:]})

    def test_types_that_could_change_a_value_are_refused(self):
        for name, dtype in (("pf/px", "i4"), ("pf/px", "f2"), ("pf/px", "S8"), ("pf/px", "?"), ("pf/px", "c8"), ("pf/pid", "f4"),
                            ("offsets", "f8"), ("id", "f8"), ("label/tau_dm", "f4"), ("label/tau_dm", "?")):
            self.bad(f"'{name}'", "expected", "got", columns={name: self.columns[name].astype(dtype)})

    def test_values_that_mean_nothing_are_refused_with_their_row(self):
        for bad in (np.nan, np.inf, -np.inf):
            for name in ("pf/px", "pf/energy", "jet/phi", "truth/vis_pz"):
                self.bad(f"'{name}', row 77", "expected a finite value", **self.with_value(name, 77, bad))
        self.bad("'pf/d0', row 77", "expected a finite value or NaN", **self.with_value("pf/d0", 77, np.inf))
        self.bad("'pf/px', row 77", "within f32", **self.with_value("pf/px", 77, 1e39, "f8"))
        self.bad("'pf/energy', row 0 (jet 0)", "at least 0", **self.with_value("pf/energy", 0, -1))
        self.bad("'pf/pid', row 1043 (jet 119)", "0 to 5", **self.with_value("pf/pid", 1043, 6))
        for mode in (-2, 17):
            self.bad("'label/tau_dm', row 5", "-1 to 16", **self.with_value("label/tau_dm", 5, mode))
        self.good(**self.with_value("pf/d0", 77, np.nan))

    def test_classes_outside_their_list_are_refused(self):
        def labelled(labels, classes):
            def add(file):
                file.create_dataset("label/class", data=labels, maxshape=(None,), chunks=(100,), fletcher32=True)
                if classes:
                    file["label/class"].attrs["classes"] = classes
            return {"change": add}
        labels = np.arange(120) % 3
        self.good(**labelled(labels, ["a", "b", "c"]))
        self.bad("'label/class', row 2", "expected 0 to 1, got 2", **labelled(labels, ["a", "b"]))
        self.bad("'label/class'", "row 0", "-1", **labelled(labels - 1, ["a", "b"]))
        self.bad("'label/class'", "f64", **labelled(labels / 2, ["a", "b", "c"]))
        self.bad("'classes'", "got nothing", **labelled(labels, None))

    def test_offsets_that_do_not_rise_from_0_to_the_end_are_refused_with_the_row(self):
        good = self.columns["offsets"]
        for row, value in ((3, 10**6), (3, -1), (0, 1), (0, -1), (120, 2**40), (60, 0)):
            offsets = good.copy()
            offsets[row] = value
            wrong = row if value != 10**6 else 4  # a step of a million is allowed, the step back is not
            self.bad(f"'offsets', row {wrong}", "expected", columns={"offsets": offsets})
        for offsets in (good[:-1], np.append(good, good[-1])):
            self.bad("expected", "got", columns={"offsets": offsets})
        past = good.copy()
        past[-1] += 1
        self.bad("'pf/px'", "expected 1045 rows, got 1044", columns={"offsets": past}, attributes={"m": np.int64(1045)})

    def test_other_attributes_and_units_are_refused(self):
        self.bad("'format'", attributes={"format": NOTHING})
        self.bad("'format'", "expected 'tessera', got 'other'", attributes={"format": "other"})
        self.bad("'kind'", "expected 'jets'", attributes={"kind": "images"})
        self.bad("'format_version'", "expected 1, got 2", attributes={"format_version": np.uint32(2)})
        self.bad("'n'", "expected 120", "got 119", attributes={"n": np.int64(119)})
        self.bad("'content_xxh3'", "damaged", attributes={"content_xxh3": "0" * 32})
        for name, unit in (("pf/px", "MeV"), ("pf/d0", "cm"), ("jet/phi", "deg")):
            self.bad(f"'{name}'", "'unit'", unit, change=lambda f, n=name, u=unit: f[n].attrs.create("unit", u))
        self.good(change=lambda f: f["pf/px"].attrs.create("unit", "GeV"))

    def test_links_virtual_and_external_data_and_foreign_filters_are_refused(self):
        target = os.path.join(self.write(), "a.h5")

        def replaced(make):
            return {"columns": {"pf/px": NOTHING}, "change": make}
        self.bad("'pf/px'", "hard link", **replaced(lambda f: f.__setitem__("pf/px", h5py.SoftLink("/pf/py"))))
        self.bad("'pf/px'", "hard link", **replaced(lambda f: f.__setitem__("pf/px", h5py.ExternalLink(target, "pf/px"))))

        def virtual(file):
            layout = h5py.VirtualLayout(shape=(1044,), dtype="f4")
            layout[:] = h5py.VirtualSource(target, "pf/px", shape=(1044,))
            file.create_virtual_dataset("pf/px", layout)
        self.bad("'pf/px'", "virtual or external", **replaced(virtual))
        raw = self.path("raw.bin")
        with open(raw, "wb") as file:
            file.write(bytes(5000))
        self.bad("'pf/px'", "virtual or external",
                 **replaced(lambda f: f.create_dataset("pf/px", (1044,), "f4", external=[(raw, 0, 5000)])))
        self.bad("'pf/px'", "filter 32000 'lzf'", "h5repack", storage={"pf/px": {"compression": "lzf"}})
        self.bad("'pf/px'", "fletcher32", storage={"pf/px": {"fletcher32": False}})
        self.bad("'pf/px'", "extent asks for",
                 **replaced(lambda f: f.create_dataset("pf/px", (2**40,), "f4", maxshape=(None,), chunks=(1000,), fletcher32=True)))

    def test_an_id_that_comes_twice_is_refused(self):
        folder = self.write()
        shutil.copy(os.path.join(folder, "a.h5"), os.path.join(folder, "b-test.h5"))
        self.refused(65, ["inspect", "--write-manifest", folder], "a.h5", "b-test.h5", "'id', row 0")

    def test_files_that_are_no_hdf5_file_are_refused(self):
        folder = self.write()
        for content in (b"", b"\x89HDF\r\n\x1a\n", b"PAR1" * 100, b"\0" * 10000):
            with open(os.path.join(folder, "a.h5"), "wb") as file:
                file.write(content)
            self.refused(65, ["inspect", "--write-manifest", folder], "a.h5", "cannot open as HDF5")

    def test_whatever_happens_to_a_listed_file_is_noticed_before_training(self):
        folder = self.good()
        path, manifest = os.path.join(folder, "a.h5"), os.path.join(folder, "manifest.json")
        train = ["train-tokenizer", "--quiet", f"data.jets={folder}", f"data.taus={folder}", f"run.directory={self.path('run')}"]
        with open(path, "rb") as file:
            whole = bytearray(file.read())
        rng = np.random.default_rng(3)
        damaged = [whole[:keep] for keep in range(0, len(whole), 4096)] + [whole + b"x"]
        for bit in rng.integers(0, 8 * len(whole), 40):
            damaged.append(bytearray(whole))
            damaged[-1][bit // 8] ^= 1 << (bit % 8)
        for i, content in enumerate(damaged):
            with open(path, "wb") as file:
                file.write(content)
            self.refused(65, ["verify", folder], "a.h5", "expected", "got")
            if i % 20 == 0:
                self.refused(65, train, "a.h5", "expected", "got")
        os.remove(path)
        self.refused(66, ["verify", folder], "a.h5")
        self.refused(66, train, "a.h5")
        with open(path, "wb") as file:
            file.write(whole)
        with open(manifest) as file:
            text = file.read()
        with open(manifest, "w") as file:
            file.write(text.replace('"n": 120', '"n": 121'))
        self.refused(65, ["verify", folder], "manifest.json", "--write-manifest")
        os.remove(manifest)
        self.refused(66, train, "manifest.json", "tessera inspect --write-manifest")


class PublicFiles(CommandLine):
    def convert(self, source, dataset, code, *words, more=()):
        out = self.path("out.h5")
        arguments = ["convert", source, out, "--dataset", dataset, "--python", sys.executable, *more]
        if code == 0:
            self.tessera(*arguments, code=0)
            return out
        self.refused(code, arguments, *words)
        self.assertFalse(os.path.exists(out))
        return None

    def root(self, branch, change):
        arrays = uproot.open(os.path.join(FIXTURES, "jetclass.root"))["tree"].arrays()
        columns = {n: arrays[n] for n in arrays.fields if not n.startswith("npart_") and n != "n"}
        values = columns[branch].to_list()
        change(values)
        ragged = isinstance(values[0], list)
        columns[branch] = ak.values_astype(ak.Array(values), "f8") if ragged else np.array(values, "f8")
        with uproot.recreate(self.path("x.root")) as file:
            file.mktree("tree", {k: v.type.content if hasattr(v, "type") else v.dtype for k, v in columns.items()})
            file["tree"].extend(columns)
        return self.path("x.root")

    def parquet(self, column, change):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        values = table[column].to_pylist()
        change(values)
        i = table.schema.get_field_index(column)
        pq.write_table(table.set_column(i, column, pa.array(values, table.schema.field(i).type)), self.path("x.parquet"))
        return self.path("x.parquet")

    def test_jetclass(self):
        def at(row, constituent, value):
            return lambda v: v[row].__setitem__(constituent, value) if constituent is not None else v.__setitem__(row, value)
        self.convert(self.root("part_px", at(12, 3, float("nan"))), "jetclass", 65, "x.root", "'part_px'", "row 12, constituent 3",
                     "expected a finite number, got nan")
        self.convert(self.root("jet_pt", at(39, None, float("inf"))), "jetclass", 65, "x.root", "'jet_pt'", "row 39")
        self.convert(self.root("label_Zqq", at(7, None, 0.5)), "jetclass", 65, "'label_Zqq'", "row 7", "got 0.5")
        self.convert(self.root("label_Zqq", at(7, None, -1)), "jetclass", 65, "'label_Zqq'", "row 7", "got -1")
        self.convert(self.root("part_isPhoton", lambda v: v[4].append(v[5].pop())), "jetclass", 65, "'part_isPhoton'", "row 4")
        self.convert(self.root("part_d0val", at(12, 3, float("nan"))), "jetclass", 0)

    def test_fu_tau_re(self):
        def momentum(rows):
            rows[33][1]["z"] = float("inf")
        self.convert(self.parquet("reco_cand_p4s", momentum), "fu-tau-re", 65, "x.parquet", "reco_cand_p4s.z", "row 33, constituent 1")
        self.convert(self.parquet("gen_jet_tau_decaymode", lambda v: v.__setitem__(90, 17)), "fu-tau-re", 65,
                     "gen_jet_tau_decaymode", "row 90", "[-1, 16]")
        self.convert(self.parquet("reco_cand_dz", lambda v: v[2].pop()), "fu-tau-re", 65, "reco_cand_dz", "row 2")
        self.convert(self.parquet("reco_cand_dz", lambda v: v[2].__setitem__(0, float("-inf"))), "fu-tau-re", 0)

    def test_files_and_arguments_that_are_not_what_they_should_be(self):
        root = os.path.join(FIXTURES, "jetclass.root")
        self.convert(self.path("none.root"), "jetclass", 66, "none.root", "got nothing there")
        self.convert(root, "fu-tau-re", 65, "jetclass.root", "cannot be read as fu-tau-re")
        self.convert(root, "jetclass", 65, "jetclass.root", "damaged", more=("--checksum", "md5:" + "0" * 32))
        self.convert(root, "jetclass", 64, "--checksum", more=("--checksum", "crc:1"))
        with open(root, "rb") as whole, open(self.path("part.root"), "wb") as part:
            part.write(whole.read()[:50000])
        self.convert(self.path("part.root"), "jetclass", 65, "part.root", "cannot be read as jetclass")
        out = self.convert(root, "jetclass", 0)
        self.refused(74, ["convert", root, out, "--dataset", "jetclass", "--python", sys.executable], "out.h5", "not overwritten")
        self.refused(74, ["convert", root, self.path("no", "out.h5"), "--dataset", "jetclass", "--python", sys.executable], "cannot be written")

    def test_a_full_disk_is_the_fault_of_the_destination(self):
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            out = self.path("out.h5")
            for limit in (0, 10_000, 40_000):
                done = subprocess.run([TESSERA, "convert", os.path.join(FIXTURES, name), out, "--dataset", dataset, "--python", sys.executable],
                                      cwd=ROOT, capture_output=True, text=True, preexec_fn=lambda: largest_file(limit))
                self.assertEqual(done.returncode, 74, done.stderr)
                self.assertIn(f"{out}: cannot be written: File too large", done.stderr)
                self.assertNotIn(name, done.stderr)
                self.assertEqual(os.listdir(self.folder), [])

    def test_a_converted_file_is_a_data_set(self):
        os.mkdir(self.path("data"))
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            folder = self.path(dataset)
            os.mkdir(folder)
            self.tessera("convert", os.path.join(FIXTURES, name), os.path.join(folder, "train.h5"), "--dataset", dataset,
                         "--python", sys.executable, code=0)
            self.tessera("inspect", "--write-manifest", folder, code=0)
            self.tessera("verify", folder, code=0)


if __name__ == "__main__":
    unittest.main()
