"""Pictures of what was measured, and of networks; the only part of the analysis that needs matplotlib."""
