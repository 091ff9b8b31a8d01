"""`VERIFY.md`: what an auditor reads first."""

TEXT = "TODO"
