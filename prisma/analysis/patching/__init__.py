"""What happens to the answer when a part of the model is replaced, ablated, corrupted or restored?"""
