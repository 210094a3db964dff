"""How networks are judged, and what they predict."""
