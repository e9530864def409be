"""The composition root: configuration → objects → fit → test → record; the only room that imports every other."""
