"""Trials: the whole program against real faults, judged by code that shares only files and tables with it."""
