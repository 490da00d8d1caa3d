-- Which past candles are held, from whom, and how whole they are: one row per symbol, timeframe and source.
DECLARE
    @symbol := '',       -- a symbol; '' for all
    @timeframe := ''     -- an interval, as 1h; '' for all
WITH held AS (
    SELECT symbol, timeframe, source, count() candles, min(timestamp) first_candle, max(timestamp) last_candle
    FROM market_data_points
    WHERE (@symbol = '' OR symbol = @symbol) AND (@timeframe = '' OR timeframe = @timeframe)
)
SELECT h.symbol, h.timeframe, h.source, h.candles, h.first_candle, h.last_candle,
    q.completeness_percentage, q.missing_records, q.score, q.checked_at
FROM held h
LEFT JOIN data_quality q ON q.symbol = h.symbol AND q.timeframe = h.timeframe
ORDER BY h.symbol, h.timeframe, h.candles DESC;
