"""Data sets: found on disk, split, verified and prepared."""
