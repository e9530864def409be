"""Pure functions: scores and positives in, one value per row out. No parameters."""
