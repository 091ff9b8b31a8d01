"""One verb per file.  A flow never calls a flow; they meet in the records."""
