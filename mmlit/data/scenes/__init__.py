"""The embedded data set: rendered scenes whose graph, captions and complete true pairs are known."""
