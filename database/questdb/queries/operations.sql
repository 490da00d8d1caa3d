-- How operations went, by task and provider: how many, how many succeeded, how long they took, how many rows they brought.
DECLARE
    @task := '',              -- only this task; '' for all
    @from := '1970-01-01',    -- the first start, included
    @to := '2100-01-01'       -- the last start, excluded
SELECT task_name, provider, count() runs,
    sum(CASE WHEN status = 'completed' THEN 1 ELSE 0 END) * 100.0 / count() success_percent,
    approx_percentile(duration, 0.5, 3) p50_seconds, approx_percentile(duration, 0.95, 3) p95_seconds,
    max(duration) longest_seconds, sum(records) records, sum(retries) retries
FROM data_collection_logs
WHERE started_at >= @from AND started_at < @to AND (@task = '' OR task_name = @task)
ORDER BY task_name, provider;
