"""Alignment strategies: one module, one yaml, one test each."""
