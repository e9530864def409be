"""One augmentation each."""
