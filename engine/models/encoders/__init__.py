"""Encoders: images to maps at known strides."""
