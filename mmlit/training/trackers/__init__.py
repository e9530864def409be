"""Where curves, pictures and results are shown: one module per choice of `conf/logger/`, and what guards them all."""
