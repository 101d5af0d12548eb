"""Executors and whole runs under strain: tasks without pause, kills, nodes that come and go."""
