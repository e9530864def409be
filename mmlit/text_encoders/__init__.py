"""Text encoders: each brings its own tokenizer."""
