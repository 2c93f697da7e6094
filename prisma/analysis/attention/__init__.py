"""Where does attention go, and what does it carry?"""
