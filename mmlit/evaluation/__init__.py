"""Scores and correspondence to numbers: one evaluator for every alignment."""
