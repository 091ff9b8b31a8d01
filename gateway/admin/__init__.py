"""The `lethe` command line, on the client, with no back door."""
