"""Scripts that static checks run; they import nothing of the wheel."""
