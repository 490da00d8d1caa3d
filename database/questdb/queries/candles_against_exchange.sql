-- Our closed candles beside the exchange's own (data type klines) of the same session: what differs, and by how much.
-- Partial candles and those of a gap are left out. No row means that all agree to within the tolerance.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := '',             -- a symbol; '' for all
    @tolerance := 0.00000001,  -- how far volumes may differ
    @from := '1970-01-01',     -- the first start of a candle, included
    @to := '2100-01-01'        -- the last start of a candle, excluded
WITH ours AS (
    SELECT timestamp, session_id, symbol, interval, open, high, low, close, volume, trades_count
    FROM aggregated_ohlcv
    WHERE timestamp >= @from AND timestamp < @to AND is_closed AND coverage = 'full'
        AND (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol)
), theirs AS (
    SELECT timestamp, session_id, symbol, interval, open, high, low, close, volume, trades_count
    FROM exchange_klines
    WHERE timestamp >= @from AND timestamp < @to AND is_closed
        AND (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol)
)
SELECT o.timestamp, o.session_id, o.symbol, o.interval,
    o.open, t.open exchange_open, o.high, t.high exchange_high, o.low, t.low exchange_low,
    o.close, t.close exchange_close, o.volume, t.volume exchange_volume,
    o.trades_count, t.trades_count exchange_trades_count
FROM ours o JOIN theirs t
    ON o.timestamp = t.timestamp AND o.session_id = t.session_id AND o.symbol = t.symbol AND o.interval = t.interval
WHERE o.open != t.open OR o.high != t.high OR o.low != t.low OR o.close != t.close
    OR abs(o.volume - t.volume) > @tolerance OR o.trades_count != t.trades_count
ORDER BY o.timestamp, o.session_id, o.symbol, o.interval;
