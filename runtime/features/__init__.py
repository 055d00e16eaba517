"""Recordings, pictures and clips into the arrays that the graphs take."""
