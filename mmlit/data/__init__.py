"""Files on disk become items, items become batches."""
