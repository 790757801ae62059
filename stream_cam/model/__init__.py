"""Networks that have class activation maps, and where their weights and labels come from."""
