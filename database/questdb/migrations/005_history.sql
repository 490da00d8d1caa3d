-- Past candles and what is known of them; the first two are streams of collector/streams.py (a test compares them).

CREATE TABLE IF NOT EXISTS market_data (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    asset_type SYMBOL,
    timeframe SYMBOL,
    open DOUBLE,
    high DOUBLE,
    low DOUBLE,
    close DOUBLE,
    volume DOUBLE,
    quote_volume DOUBLE,
    trades_count LONG,
    taker_buy_volume DOUBLE,
    taker_buy_quote_volume DOUBLE,
    source SYMBOL,
    created_at TIMESTAMP,
    seq LONG
) TIMESTAMP(timestamp) PARTITION BY YEAR WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, timeframe, source);

CREATE TABLE IF NOT EXISTS candles_1m (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    asset_type SYMBOL,
    timeframe SYMBOL,
    open DOUBLE,
    high DOUBLE,
    low DOUBLE,
    close DOUBLE,
    volume DOUBLE,
    quote_volume DOUBLE,
    trades_count LONG,
    taker_buy_volume DOUBLE,
    taker_buy_quote_volume DOUBLE,
    source SYMBOL,
    created_at TIMESTAMP,
    seq LONG
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, timeframe, source);

-- One row per key: the designated timestamp must be among the dedup keys, so it is the epoch in every row.
CREATE TABLE IF NOT EXISTS historical_data_range (
    key_time TIMESTAMP,
    symbol SYMBOL,
    timeframe SYMBOL,
    earliest_date TIMESTAMP,
    latest_date TIMESTAMP,
    total_records LONG,
    is_complete BOOLEAN,
    updated_at TIMESTAMP
) TIMESTAMP(key_time) PARTITION BY YEAR WAL
DEDUP UPSERT KEYS(key_time, symbol, timeframe);

CREATE TABLE IF NOT EXISTS data_quality (
    key_time TIMESTAMP,
    symbol SYMBOL,
    timeframe SYMBOL,
    completeness_percentage DOUBLE,
    missing_records LONG,
    has_gaps BOOLEAN,
    score DOUBLE,
    detail VARCHAR,
    checked_at TIMESTAMP
) TIMESTAMP(key_time) PARTITION BY YEAR WAL
DEDUP UPSERT KEYS(key_time, symbol, timeframe);

CREATE TABLE IF NOT EXISTS data_collection_logs (
    started_at TIMESTAMP,
    task_id VARCHAR,
    task_name SYMBOL,
    status SYMBOL,
    finished_at TIMESTAMP,
    duration DOUBLE,
    provider SYMBOL,
    symbols LONG,
    records LONG,
    retries LONG,
    error VARCHAR,
    detail VARCHAR
) TIMESTAMP(started_at) PARTITION BY MONTH WAL
DEDUP UPSERT KEYS(started_at, task_id);

CREATE TABLE IF NOT EXISTS symbols (
    key_time TIMESTAMP,
    symbol SYMBOL,
    base SYMBOL,
    quote SYMBOL,
    name VARCHAR,
    coingecko_id VARCHAR,
    market_cap_rank LONG,
    is_active BOOLEAN,
    is_stablecoin BOOLEAN,
    is_wrapped BOOLEAN,
    exchanges VARCHAR,
    updated_at TIMESTAMP
) TIMESTAMP(key_time) PARTITION BY YEAR WAL
DEDUP UPSERT KEYS(key_time, symbol);

CREATE VIEW IF NOT EXISTS market_data_points AS (
    SELECT timestamp, symbol, asset_type, timeframe, open, high, low, close, volume, quote_volume, trades_count,
           taker_buy_volume, taker_buy_quote_volume, source, created_at, session_id
    FROM market_data
    UNION ALL
    SELECT timestamp, symbol, asset_type, timeframe, open, high, low, close, volume, quote_volume, trades_count,
           taker_buy_volume, taker_buy_quote_volume, source, created_at, session_id
    FROM candles_1m
);

CREATE VIEW IF NOT EXISTS trades AS (
    SELECT timestamp, symbol, exchange, price, volume, quote_volume, side, trade_id, session_id, seq, source
    FROM tick_prices
);
