"""TODO: what this room holds, what comes in, what goes out."""
