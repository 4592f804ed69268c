"""Drafts: tokens of an answer that are guessed, computed together with the one that is known, and kept where they come true.

The text is the same to the bit with drafts and without: every token is drawn from the same logits by the same sampler.
"""
