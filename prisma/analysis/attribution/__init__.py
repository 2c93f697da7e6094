"""How much does each part of the model add to the answer?"""
