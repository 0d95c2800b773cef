"""Package indexes: which releases exist, what a server has, our own static index."""
