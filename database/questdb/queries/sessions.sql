-- Which sessions there are: newest first, with what they collected.
DECLARE
    @status := '',    -- only sessions in this state; '' for all
    @exchange := '',  -- only sessions of this exchange; '' for all
    @rows := 50       -- how many sessions at most
SELECT session_id, status, exchange, symbols, data_types, label, start_time, end_time, duration_seconds,
    prices_count, orderbook_count, candles_count, gaps_count, errors_count
FROM data_collection_sessions
WHERE (@status = '' OR status = @status) AND (@exchange = '' OR exchange = @exchange)
ORDER BY created_at DESC, session_id
LIMIT @rows;
