-- Collection sessions and their streams. The four stream tables are those of collector/streams.py (a test compares them).

-- A session's row is upserted as it goes on: its created_at, the designated timestamp, never changes.
CREATE TABLE IF NOT EXISTS data_collection_sessions (
    session_id SYMBOL,
    status SYMBOL,
    exchange SYMBOL,
    symbols VARCHAR,
    data_types VARCHAR,
    label VARCHAR,
    start_time TIMESTAMP,
    end_time TIMESTAMP,
    duration_seconds DOUBLE,
    records_collected LONG,
    prices_count LONG,
    orderbook_count LONG,
    candles_count LONG,
    gaps_count LONG,
    errors_count LONG,
    error VARCHAR,
    created_at TIMESTAMP,
    heartbeat_at TIMESTAMP
) TIMESTAMP(created_at) PARTITION BY MONTH WAL
DEDUP UPSERT KEYS(created_at, session_id);

CREATE TABLE IF NOT EXISTS tick_prices (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    price DOUBLE,
    volume DOUBLE,
    quote_volume DOUBLE,
    side SYMBOL,
    trade_id VARCHAR,
    seq LONG,
    received_at TIMESTAMP,
    source SYMBOL,
    first_raw_id LONG,
    last_raw_id LONG
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

CREATE TABLE IF NOT EXISTS tick_orderbook (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    bid_price_1 DOUBLE,
    bid_qty_1 DOUBLE,
    bid_price_2 DOUBLE,
    bid_qty_2 DOUBLE,
    bid_price_3 DOUBLE,
    bid_qty_3 DOUBLE,
    ask_price_1 DOUBLE,
    ask_qty_1 DOUBLE,
    ask_price_2 DOUBLE,
    ask_qty_2 DOUBLE,
    ask_price_3 DOUBLE,
    ask_qty_3 DOUBLE,
    update_id LONG,
    seq LONG,
    received_at TIMESTAMP
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

-- By day, not by month: the late close of a long interval merges into its partition, which rewrites what stands after it.
CREATE TABLE IF NOT EXISTS aggregated_ohlcv (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    interval SYMBOL,
    open DOUBLE,
    high DOUBLE,
    low DOUBLE,
    close DOUBLE,
    volume DOUBLE,
    quote_volume DOUBLE,
    trades_count LONG,
    taker_buy_volume DOUBLE,
    first_trade_id VARCHAR,
    last_trade_id VARCHAR,
    is_closed BOOLEAN,
    coverage SYMBOL,
    source SYMBOL,
    revision LONG,
    seq LONG
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, interval);

CREATE TABLE IF NOT EXISTS collection_gaps (
    detected_at TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    gap_id VARCHAR,
    symbol SYMBOL,
    stream SYMBOL,
    cause SYMBOL,
    from_time TIMESTAMP,
    to_time TIMESTAMP,
    from_id LONG,
    to_id LONG,
    expected_rows LONG,
    repaired_rows LONG,
    state SYMBOL,
    repaired_from SYMBOL,
    detail VARCHAR,
    revision LONG,
    seq LONG
) TIMESTAMP(detected_at) PARTITION BY MONTH WAL
DEDUP UPSERT KEYS(detected_at, session_id, gap_id);

ALTER TABLE indicators ADD COLUMN session_id SYMBOL;
ALTER TABLE indicators DEDUP ENABLE UPSERT KEYS(timestamp, symbol, interval, name, session_id);

ALTER TABLE backtest_results ADD COLUMN session_id SYMBOL;
ALTER TABLE backtest_results DEDUP ENABLE UPSERT KEYS(timestamp, backtest_id, symbol, session_id);

-- Nothing ever wrote these. The runner drops a table only where an earlier migration made it and it holds no row.
DROP TABLE IF EXISTS strategy_signals;
DROP TABLE IF EXISTS system_metrics;
DROP TABLE IF EXISTS error_logs;
DROP TABLE IF EXISTS orders;
DROP TABLE IF EXISTS positions;
