"""The writer: from the tile topics into the online store, each tile once, whatever is killed."""
