"""A leaderboard as a person sees it: page, plots, terminal, LaTeX, Markdown and model card.

A `Leaderboard` comes in. Text, pictures and files go out. Nothing is decided here: which run, row or verdict
counts is known before.
"""
