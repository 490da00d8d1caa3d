-- What it costs to cross the book: the spread of the best prices, in quote currency and in basis points of the middle.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := 'BTC_USDT',     -- the symbol
    @interval := 1m,           -- the length of a bucket
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
SELECT timestamp, exchange,
    avg(ask_price_1 - bid_price_1) spread,
    avg((ask_price_1 - bid_price_1) / ((ask_price_1 + bid_price_1) / 2) * 10000) spread_bp,
    min((ask_price_1 - bid_price_1) / ((ask_price_1 + bid_price_1) / 2) * 10000) least_bp,
    max((ask_price_1 - bid_price_1) / ((ask_price_1 + bid_price_1) / 2) * 10000) most_bp,
    count() book_rows
FROM tick_orderbook
WHERE symbol = @symbol AND timestamp >= @from AND timestamp < @to AND (@session = '' OR session_id = @session)
    AND bid_price_1 != NULL AND ask_price_1 != NULL
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp, exchange;
