"""Proves: canonical leaves, the tree over them, signed checkpoints, proofs, exports.  Functions on bytes."""
