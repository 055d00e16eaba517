"""A profile as one HTML page with pictures, which needs nothing beside it."""
