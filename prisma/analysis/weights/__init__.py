"""What do the weights say, without any image?"""
