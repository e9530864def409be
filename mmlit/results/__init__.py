"""One record per run, and the comparison that is made from records alone."""
