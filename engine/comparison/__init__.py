"""Runs of several methods, labelled shares and seeds, side by side: what is run, by whom, and what came of it."""
