"""Faster forms of the operations that `ops` defines. Each is tested against its definition, in value and gradient."""
