"""The command line.

What comes in is what a person typed; what goes out is a call of another room, and what that room says,
printed. Nothing imports this room.
"""
