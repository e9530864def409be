"""Compare image-text alignment strategies: same encoders, pairs, budget and evaluator for all of them."""
