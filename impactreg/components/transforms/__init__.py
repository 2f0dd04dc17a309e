"""Transforms: from fixed to moving points, with their Jacobians, and their files."""
