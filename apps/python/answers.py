#!/usr/bin/env python3
"""Writes the answers of `tessera predict` as Parquet or as a ROOT file.

  answers.py SOURCE DESTINATION --format parquet|root

SOURCE begins with a line of JSON, {"head": what the rows are, "types": one of i64, u64, f32, f64, text for each column};
below it is CSV with a line of names. A cell without a value becomes null in Parquet; in ROOT a number becomes NaN and a
text "". ROOT gets the tree "answers", whose branches have "_" for every character that C++ names do not take, and the
head as the string "about".
"""

import json
import os
import re
import sys

from program import Parser, exit_code_of, publish, temporary_name


def read(source):
    """Head and table of SOURCE."""
    import pyarrow as pa
    from pyarrow import csv

    types = {"i64": pa.int64(), "u64": pa.uint64(), "f32": pa.float32(), "f64": pa.float64(), "text": pa.string()}
    with open(source, "rb") as lines:
        first = json.loads(lines.readline())
        names = [str(i) for i in range(len(first["types"]))]  # places: two names of the file may differ in quotes alone
        table = csv.read_csv(
            lines,
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, null_values=[""], strings_can_be_null=True
            ),
        )
    columns, titles = [], []
    for column, kind in zip(table.columns, first["types"]):
        titles.append(column[0].as_py())
        columns.append(column.slice(1).cast(types[kind]))
    return first["head"], pa.table(columns, names=titles)


def write_parquet(head, table, destination):
    from pyarrow import parquet

    parquet.write_table(table.replace_schema_metadata({"tessera": json.dumps(head)}), destination)


def branch_names(names):
    """Names that ROOT takes, each once."""
    branches = []
    for name in names:
        plain = branch = re.sub(r"\W", "_", name, flags=re.ASCII)
        number = 1
        while branch in branches:
            number += 1
            branch = f"{plain}_{number}"
        branches.append(branch)
    return branches


def write_root(head, table, destination):
    import awkward as ak
    import numpy as np
    import pyarrow as pa
    import uproot

    data, kinds = {}, {}
    for name, column in zip(branch_names(table.column_names), table.columns):
        if pa.types.is_string(column.type):
            data[name], kinds[name] = ak.Array(column.fill_null("").to_pylist()), "string"
        else:
            data[name] = column.fill_null(float("nan")).to_numpy() if column.null_count else column.to_numpy()
            kinds[name] = data[name].dtype
    # one basket of strings holds its offsets as 32-bit numbers
    rows = 100_000
    with uproot.recreate(destination) as file:
        tree = file.mktree("answers", kinds, title="answers of tessera predict")
        for first in range(0, table.num_rows, rows):
            tree.extend({name: values[first : first + rows] for name, values in data.items()})
        file["about"] = json.dumps(head)


WRITERS = {"parquet": write_parquet, "root": write_root}


def main():
    parser = Parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--format", required=True, choices=WRITERS)
    args = parser.parse_args()
    head, table = read(args.source)
    temporary = temporary_name(args.destination)
    try:
        WRITERS[args.format](head, table, temporary)
        publish(os.open(temporary, os.O_RDONLY), temporary, args.destination)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


if __name__ == "__main__":
    sys.exit(exit_code_of("answers.py", main))
