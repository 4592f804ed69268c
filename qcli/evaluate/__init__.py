"""How well a model predicts a text, and which experts the text asks for."""
