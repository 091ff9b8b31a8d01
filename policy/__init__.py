"""Policy decides: facts and rule books in, decisions out; no clock, no disk, no log."""
