-- The tables of a trading system around the collector.

-- What older installations wrote: ticks without a session. Sessions write tick_prices instead.
CREATE TABLE IF NOT EXISTS prices (
    timestamp TIMESTAMP,
    symbol SYMBOL,
    price DOUBLE,
    volume DOUBLE
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;

CREATE TABLE IF NOT EXISTS indicators (
    timestamp TIMESTAMP,
    symbol SYMBOL,
    interval SYMBOL,
    name SYMBOL,
    value DOUBLE,
    parameters VARCHAR
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, symbol, interval, name);

CREATE TABLE IF NOT EXISTS strategy_signals (
    timestamp TIMESTAMP,
    strategy SYMBOL,
    symbol SYMBOL,
    signal SYMBOL,
    price DOUBLE,
    quantity DOUBLE,
    detail VARCHAR
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;

CREATE TABLE IF NOT EXISTS backtest_results (
    timestamp TIMESTAMP,
    backtest_id SYMBOL,
    strategy SYMBOL,
    symbol SYMBOL,
    start_time TIMESTAMP,
    end_time TIMESTAMP,
    initial_capital DOUBLE,
    final_capital DOUBLE,
    total_return DOUBLE,
    sharpe_ratio DOUBLE,
    max_drawdown DOUBLE,
    win_rate DOUBLE,
    trades_count LONG,
    parameters VARCHAR
) TIMESTAMP(timestamp) PARTITION BY MONTH WAL
DEDUP UPSERT KEYS(timestamp, backtest_id, symbol);

CREATE TABLE IF NOT EXISTS orders (
    timestamp TIMESTAMP,
    order_id SYMBOL,
    strategy SYMBOL,
    symbol SYMBOL,
    side SYMBOL,
    type SYMBOL,
    status SYMBOL,
    price DOUBLE,
    quantity DOUBLE,
    filled_quantity DOUBLE
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;

CREATE TABLE IF NOT EXISTS positions (
    timestamp TIMESTAMP,
    strategy SYMBOL,
    symbol SYMBOL,
    side SYMBOL,
    quantity DOUBLE,
    entry_price DOUBLE,
    unrealized_pnl DOUBLE,
    realized_pnl DOUBLE
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;

CREATE TABLE IF NOT EXISTS system_metrics (
    timestamp TIMESTAMP,
    name SYMBOL,
    value DOUBLE,
    labels VARCHAR
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;

CREATE TABLE IF NOT EXISTS error_logs (
    timestamp TIMESTAMP,
    level SYMBOL,
    component SYMBOL,
    message VARCHAR,
    detail VARCHAR
) TIMESTAMP(timestamp) PARTITION BY DAY WAL;
