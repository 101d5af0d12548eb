"""Parquet from rows, few of which lie in a table at a time."""

import pyarrow as pa

from pipeline.corpus import tables

SCHEMA = pa.schema([("name", pa.string()), ("frames", pa.list_(pa.binary()))])


def test_rows_come_back_whatever_the_row_groups() -> None:
    for count in (0, 1, tables.GROUP, tables.GROUP + 1, 3 * tables.GROUP):
        rows = [{"name": f"{n}", "frames": [bytes([n % 256]), b""]} for n in range(count)]
        data = tables.rows_to_parquet(iter(rows), SCHEMA)
        assert tables.from_parquet(data, SCHEMA).to_pylist() == rows


def test_few_rows_give_the_bytes_of_their_table() -> None:
    rows = [{"name": f"{n}", "frames": None} for n in range(tables.GROUP)]
    table = tables.from_rows(rows, SCHEMA)
    assert tables.rows_to_parquet(rows, SCHEMA) == tables.to_parquet(table)
    assert tables.from_parquet(tables.to_parquet(table), SCHEMA).equals(table)
