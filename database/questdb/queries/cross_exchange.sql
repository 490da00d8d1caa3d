-- The same symbol on two exchanges: at each trade of the first, how far its price is from the last one of the second.
DECLARE
    @first := 'binance',       -- the exchange whose trades are gone through
    @second := 'kraken',       -- the exchange that they are compared with
    @symbol := 'BTC_USDT',     -- the symbol on the first
    @other_symbol := 'BTC_USDT',  -- the symbol on the second
    @interval := 1m,           -- the length of a bucket
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
WITH a AS (
    SELECT timestamp, price FROM tick_prices
    WHERE exchange = @first AND symbol = @symbol AND timestamp >= @from AND timestamp < @to
), b AS (
    SELECT timestamp, price FROM tick_prices
    WHERE exchange = @second AND symbol = @other_symbol AND timestamp >= @from AND timestamp < @to
), pairs AS (
    SELECT a.timestamp, a.price - b.price difference, (a.price - b.price) / b.price * 10000 difference_bp
    FROM a ASOF JOIN b
)
SELECT timestamp, avg(difference) difference, avg(difference_bp) average_bp, min(difference_bp) least_bp,
    max(difference_bp) most_bp, count() trades
FROM pairs
WHERE difference != NULL
SAMPLE BY @interval ALIGN TO CALENDAR
ORDER BY timestamp;
