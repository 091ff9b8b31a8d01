"""Inference servers of our own, each a process behind the contract `lethe.backend.v1`."""
