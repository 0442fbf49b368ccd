"""Readers of file formats: bytes in, checked columns and lines out."""
