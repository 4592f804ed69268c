"""The models known by name, ours and the user's: from a name, an address or a path to a file."""
