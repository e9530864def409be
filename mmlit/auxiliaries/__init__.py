"""Further terms of the training loss, composed with any alignment."""
