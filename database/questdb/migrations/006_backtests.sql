-- What a backtest was run on and what it gave, so that two runs can be told to be the same. The statistics and the
-- equity curve are JSON; the numbers that are sorted by have columns of their own.
ALTER TABLE backtest_results ADD COLUMN interval SYMBOL;
ALTER TABLE backtest_results ADD COLUMN data_hash VARCHAR;
ALTER TABLE backtest_results ADD COLUMN code_hash VARCHAR;
ALTER TABLE backtest_results ADD COLUMN commission DOUBLE;
ALTER TABLE backtest_results ADD COLUMN statistics VARCHAR;
ALTER TABLE backtest_results ADD COLUMN equity_curve VARCHAR;
