-- Candles of any interval, made of the trades. The recorded ones (exact decimals, with revisions and coverage) are in
-- aggregated_ohlcv; of trades of one and the same microsecond, first and last are the table's.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := 'BTC_USDT',     -- the symbol
    @interval := 5m,           -- the length of a candle
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
SELECT timestamp, session_id, first(price) open, max(price) high, min(price) low, last(price) close,
    sum(volume) volume, sum(quote_volume) quote_volume, sum(coalesce(last_raw_id - first_raw_id, 0) + 1) trades_count,
    sum(CASE WHEN side = 'buy' THEN volume ELSE 0.0 END) taker_buy_volume
FROM tick_prices
WHERE symbol = @symbol AND timestamp >= @from AND timestamp < @to AND (@session = '' OR session_id = @session)
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp, session_id;
