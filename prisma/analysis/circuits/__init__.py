"""Which parts of the model pass information to which other parts, and which few connections are enough?"""
