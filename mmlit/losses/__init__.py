"""Pure functions: scores and positives in (tiled: embedded pairs), one value per row out. No parameters."""
