"""The processes of the suite: files, clock, threads and signals around the sans-IO core."""
