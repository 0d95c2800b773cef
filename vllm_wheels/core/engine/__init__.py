"""Rules, plans, the store, and how an artifact comes from them."""
