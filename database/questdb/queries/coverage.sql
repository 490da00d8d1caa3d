-- What was collected when: trades per hour, and in how many of its 60 minutes there was one.
-- A minute without a trade need not be a hole: the query "gaps" has what is known to be missing.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := '',             -- a symbol; '' for all
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
WITH minutes AS (
    SELECT timestamp, session_id, symbol, count() trades
    FROM tick_prices
    WHERE timestamp >= @from AND timestamp < @to
        AND (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol)
    SAMPLE BY 1m ALIGN TO CALENDAR
)
SELECT timestamp, session_id, symbol, sum(trades) trades, count() minutes_with_trades
FROM minutes
SAMPLE BY 1h ALIGN TO CALENDAR
ORDER BY timestamp, session_id, symbol;
