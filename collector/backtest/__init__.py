"""Backtests on what was recorded: exact candles, no silent holes, the same result each time."""
