"""Programs that the guide shows."""
