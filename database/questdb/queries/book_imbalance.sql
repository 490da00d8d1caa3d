-- On which side of the book more is waiting: (bids - asks) / (bids + asks) of the best three levels, from -1 to 1.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := 'BTC_USDT',     -- the symbol
    @interval := 1m,           -- the length of a bucket
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
WITH sides AS (
    SELECT timestamp, exchange,
        coalesce(bid_qty_1, 0.0) + coalesce(bid_qty_2, 0.0) + coalesce(bid_qty_3, 0.0) bids,
        coalesce(ask_qty_1, 0.0) + coalesce(ask_qty_2, 0.0) + coalesce(ask_qty_3, 0.0) asks
    FROM tick_orderbook
    WHERE symbol = @symbol AND timestamp >= @from AND timestamp < @to AND (@session = '' OR session_id = @session)
)
SELECT timestamp, exchange, avg((bids - asks) / (bids + asks)) imbalance, avg(bids) bids, avg(asks) asks, count() book_rows
FROM sides
WHERE bids + asks > 0
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp, exchange;
