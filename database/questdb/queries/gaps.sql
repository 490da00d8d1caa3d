-- What is missing, and why: the ledger, newest first.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := '',             -- a symbol; '' for all
    @state := '',              -- only gaps in this state (open, partial, repaired, unrecoverable); '' for all
    @rows := 200               -- how many at most
SELECT detected_at, session_id, exchange, gap_id, symbol, stream, cause, state, from_time, to_time,
    (to_time::long - from_time::long) / 1000000.0 seconds, from_id, to_id, expected_rows, repaired_rows, detail
FROM collection_gaps
WHERE (@session = '' OR session_id = @session) AND (@symbol = '' OR symbol = @symbol) AND (@state = '' OR state = @state)
ORDER BY detected_at DESC, session_id, gap_id
LIMIT @rows;
