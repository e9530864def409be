"""Runs the jobs of a sweep, each as its own process, and shows how far they are. No torch, no Hydra."""
