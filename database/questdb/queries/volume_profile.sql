-- At which prices was traded: volume per step of price, with the takers' buying part.
DECLARE
    @session := '',            -- a session's id; '' for all
    @symbol := 'BTC_USDT',     -- the symbol
    @step := 10.0,             -- the height of a step, in quote currency
    @from := '1970-01-01',     -- the first exchange time, included
    @to := '2100-01-01'        -- the last exchange time, excluded
SELECT floor(price / @step) * @step price_from, sum(volume) volume,
    sum(CASE WHEN side = 'buy' THEN volume ELSE 0.0 END) taker_buy_volume, count() trades
FROM tick_prices
WHERE symbol = @symbol AND timestamp >= @from AND timestamp < @to AND (@session = '' OR session_id = @session)
ORDER BY price_from;
