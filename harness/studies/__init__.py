"""Studies: experiments that couple what a run does not, one file each, with its own loop and records."""
