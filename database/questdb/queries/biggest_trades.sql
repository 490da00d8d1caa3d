-- The biggest trades by what was paid, in quote currency.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := '',             -- a symbol; '' for all
    @rows := 20,               -- how many
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
SELECT timestamp, session_id, exchange, symbol, side, price, volume, coalesce(quote_volume, price * volume) paid, trade_id
FROM tick_prices
WHERE timestamp >= @from AND timestamp < @to
    AND (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol)
ORDER BY paid DESC, timestamp, trade_id
LIMIT @rows;
