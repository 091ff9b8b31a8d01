"""The reference backend: a headshot studio that needs a CPU and nothing else."""
