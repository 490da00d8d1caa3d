-- Books of more than three levels (orderbook.levels): two rows each, the prices and the sizes, best first. NULL where the
-- three levels of the other columns are all that the session keeps, and where a side is empty.
ALTER TABLE tick_orderbook ADD COLUMN bids DOUBLE[][];
ALTER TABLE tick_orderbook ADD COLUMN asks DOUBLE[][];
