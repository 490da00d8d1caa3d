-- What is known of a market beside its trades and books; the tables are those of collector/streams.py (a test compares them).

CREATE TABLE IF NOT EXISTS tick_funding (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    funding_rate DOUBLE,
    next_funding TIMESTAMP,
    mark_price DOUBLE,
    index_price DOUBLE,
    seq LONG,
    received_at TIMESTAMP,
    source SYMBOL
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

CREATE TABLE IF NOT EXISTS tick_open_interest (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    amount DOUBLE,
    value DOUBLE,
    seq LONG,
    received_at TIMESTAMP,
    source SYMBOL
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

CREATE TABLE IF NOT EXISTS tick_liquidations (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    price DOUBLE,
    volume DOUBLE,
    side SYMBOL,
    seq LONG,
    received_at TIMESTAMP,
    source SYMBOL
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

CREATE TABLE IF NOT EXISTS tick_tickers (
    timestamp TIMESTAMP,
    session_id SYMBOL,
    exchange SYMBOL,
    symbol SYMBOL,
    bid DOUBLE,
    bid_qty DOUBLE,
    ask DOUBLE,
    ask_qty DOUBLE,
    update_id LONG,
    seq LONG,
    received_at TIMESTAMP,
    source SYMBOL
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, seq);

-- The exchange's own candles; ours are in aggregated_ohlcv.
CREATE TABLE IF NOT EXISTS exchange_klines (
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
    is_closed BOOLEAN,
    seq LONG,
    received_at TIMESTAMP
) TIMESTAMP(timestamp) PARTITION BY DAY WAL
DEDUP UPSERT KEYS(timestamp, session_id, symbol, interval);
