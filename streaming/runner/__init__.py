"""The Java half of the stream jobs: a runner of SQL scripts and the functions that SQL lacks."""
