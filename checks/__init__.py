"""Asset checks: what is known to be right, and what is found wrong."""
