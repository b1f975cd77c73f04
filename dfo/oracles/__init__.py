"""Ways in which a question is answered."""
