"""A leaderboard as a person sees it: page, plots, terminal, LaTeX, model card.

A `Leaderboard` comes in; text and pictures go out. Nothing is decided here.
"""
