"""Hydra launcher of mmlit; `hydra_plugins` itself is a namespace package and has no such file."""
