"""Answers of a wanted form: JSON by a schema, what a regular expression or a grammar allows, one of some choices."""
