"""Image encoders: pixels in, `Encoded` out."""
