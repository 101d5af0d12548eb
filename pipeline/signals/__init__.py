"""Frames in, measures out: sharpness, motion, camera, text, bars."""
