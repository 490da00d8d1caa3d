-- The price that was paid on average: weighted by volume, per bucket and exchange.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := 'BTC_USDT',     -- the symbol
    @interval := 1m,           -- the length of a bucket
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
SELECT timestamp, exchange, sum(price * volume) / sum(volume) vwap, sum(volume) volume, count() trades
FROM tick_prices
WHERE symbol = @symbol AND timestamp >= @from AND timestamp < @to AND (@session = '' OR session_id = @session)
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp, exchange;
