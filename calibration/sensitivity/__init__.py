"""Which layers suffer from fewer bits, and how few must be kept from them for a budget of answers to hold."""
