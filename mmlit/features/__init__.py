"""Outputs of frozen encoders, encoded once."""
