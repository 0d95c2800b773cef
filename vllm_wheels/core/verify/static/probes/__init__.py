"""Programs that a static check runs; they import nothing of the wheel."""
