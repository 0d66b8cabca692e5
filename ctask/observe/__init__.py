"""Seeing into a running loop. The names are ctask's own: ctask.stats() and the like.

Nothing here is imported before it is asked for.
"""
