"""The client's own commands, one module each; heavy imports stand inside the functions."""
