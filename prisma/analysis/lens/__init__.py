"""What would the model answer if it stopped after a given layer?"""
