"""What was written, checked byte by byte (verify) or shown (describe)."""
