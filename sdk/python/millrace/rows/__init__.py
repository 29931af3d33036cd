"""Rows of raw files and topics, each cell read by the one grammar of ``millrace.values``."""
