"""apps/python/answers.py: Parquet and ROOT hold what the table held. Exit status 77 = libraries are missing."""

import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import awkward  # noqa: F401
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import uproot
except ImportError as error:
    print(f"SKIPPED: {error} (pip install -r apps/python/requirements.txt)")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEAD = {"task": "tag", "classes": ["H->bb, boosted", 'a "b"']}
TYPES = ["u64", "i64", "f32", "text", "f64", "f64", "f32"]
TABLE = (
    'id,run,jet_pt,label,"p_H->bb, boosted","p_a ""b""",jet/pt\n'
    '18446744073709551615,-360000,500.25,"H->bb, boosted",0.10000000000000001,0.90000000000000002,1\n'
    '2,7,0.1,"two\nlines",,,2\n'
    "3,9007199254740993,inf,,1,0,\n"
)


class AnswersTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run_program(self, ending, table=TABLE, types=TYPES):
        with open(self.path("source"), "w", encoding="utf-8", newline="") as source:
            source.write(json.dumps({"head": HEAD, "types": types}) + "\n" + table)
        program = os.path.join(ROOT, "apps", "python", "answers.py")
        out = self.path("out." + ending)
        return out, subprocess.run([sys.executable, program, self.path("source"), out, "--format", ending], capture_output=True, text=True)

    def test_parquet_keeps_types_digits_names_and_cells_without_a_value(self):
        out, result = self.run_program("parquet")
        self.assertEqual(result.returncode, 0, result.stderr)
        table = pq.read_table(out)
        self.assertEqual(table.column_names, ["id", "run", "jet_pt", "label", "p_H->bb, boosted", 'p_a "b"', "jet/pt"])
        self.assertEqual(
            table.schema.types,
            [pa.uint64(), pa.int64(), pa.float32(), pa.string(), pa.float64(), pa.float64(), pa.float32()],
        )
        columns = list(table.to_pydict().values())
        self.assertEqual(columns[0], [2**64 - 1, 2, 3])
        self.assertEqual(columns[1], [-360000, 7, 2**53 + 1])
        self.assertEqual(columns[2], [500.25, float(np.float32(0.1)), math.inf])
        self.assertEqual(columns[3], ["H->bb, boosted", "two\nlines", None])
        self.assertEqual(columns[4], [0.1, None, 1.0])
        self.assertEqual(columns[6], [1, 2, None])
        self.assertEqual(json.loads(table.schema.metadata[b"tessera"]), HEAD)

    def test_root_keeps_them_under_names_that_root_takes(self):
        out, result = self.run_program("root")
        self.assertEqual(result.returncode, 0, result.stderr)
        with uproot.open(out) as file:
            tree = file["answers"]
            self.assertEqual(tree.keys(), ["id", "run", "jet_pt", "label", "p_H__bb__boosted", "p_a__b_", "jet_pt_2"])
            self.assertEqual(tree["id"].typename, "uint64_t")
            self.assertEqual(tree["jet_pt"].typename, "float")
            self.assertEqual(tree["id"].array(library="np").tolist(), [2**64 - 1, 2, 3])
            self.assertEqual(tree["run"].array(library="np").tolist(), [-360000, 7, 2**53 + 1])
            self.assertEqual(tree["label"].array().to_list(), ["H->bb, boosted", "two\nlines", ""])
            p = tree["p_H__bb__boosted"].array(library="np")
            self.assertEqual([p[0], p[2]], [0.1, 1.0])
            self.assertTrue(math.isnan(p[1]))
            self.assertTrue(math.isnan(tree["jet_pt_2"].array(library="np")[2]))
            self.assertEqual(json.loads(file["about"]), HEAD)

    def test_no_row_and_many_rows(self):
        many = "".join(f"{i},x{i % 3}\n" for i in range(250_001))
        for rows, table in ((0, "id,label\n"), (250_001, "id,label\n" + many)):
            for ending in ("parquet", "root"):
                out, result = self.run_program(ending, table, ["u64", "text"])
                self.assertEqual(result.returncode, 0, result.stderr)
                if ending == "parquet":
                    self.assertEqual(pq.read_table(out).num_rows, rows)
                else:
                    ids = uproot.open(out)["answers"]["id"].array(library="np")
                    self.assertEqual(ids.tolist(), list(range(rows)))

    def test_a_place_that_cannot_be_written_is_an_input_output_error(self):
        self.folder_is_file = self.path("file")
        open(self.folder_is_file, "w").close()
        for ending in ("parquet", "root"):
            program = os.path.join(ROOT, "apps", "python", "answers.py")
            self.run_program(ending)
            out = os.path.join(self.folder_is_file, "x." + ending)
            result = subprocess.run([sys.executable, program, self.path("source"), out, "--format", ending], capture_output=True, text=True)
            self.assertEqual(result.returncode, 74, result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
