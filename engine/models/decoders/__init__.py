"""Decoders: an encoder's maps to features."""
