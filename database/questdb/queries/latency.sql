-- How long trades took from the exchange's clock to ours, in milliseconds, per bucket: a clock that is off shifts it all.
-- Trades that a repair fetched over REST are left out.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := '',             -- a symbol; '' for all
    @interval := 1m,           -- the length of a bucket
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
WITH delays AS (
    SELECT timestamp, exchange, (received_at::long - timestamp::long) / 1000.0 delay_ms
    FROM tick_prices
    WHERE timestamp >= @from AND timestamp < @to AND source != 'rest' AND received_at != NULL
        AND (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol)
)
SELECT timestamp, exchange, min(delay_ms) least_ms, avg(delay_ms) average_ms, max(delay_ms) most_ms,
    sum(CASE WHEN delay_ms > 1000.0 THEN 1 ELSE 0 END) above_1s, count() trades
FROM delays
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp, exchange;
