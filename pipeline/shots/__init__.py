"""Frames in, shot boundaries out."""
