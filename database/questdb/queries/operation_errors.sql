-- Which operations went wrong: newest first, with what was said.
DECLARE
    @task := '',    -- only this task; '' for all
    @rows := 50     -- how many at most
SELECT started_at, task_name, provider, status, duration, symbols, records, retries, error
FROM data_collection_logs
WHERE (error IS NOT NULL OR status = 'failed') AND (@task = '' OR task_name = @task)
ORDER BY started_at DESC
LIMIT @rows;
