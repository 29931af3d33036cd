"""The grammar of values: what a cell or a field may look like to be of a column's type.

Written down in docs/values.md. The archive, backfills of CSV and JSON, ``millrace produce`` and the
CSV of spines all read by these modules; the stream jobs have the same grammar in Java, and a suite
holds the two equal.
"""
