"""Conversations that are kept: one file each in the user's data folder.

`records` says what stands in a line, `SessionLog` adds lines, `Library` finds conversations by name or number.
"""
