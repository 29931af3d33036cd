"""Plans into running streams: Flink jobs, the store's writer, the uploads and the archive."""
