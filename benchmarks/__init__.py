"""Speed and memory: each script prints one JSON line. See README.md."""
