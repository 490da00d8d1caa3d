-- Strategies with their parameters, to run again. created_at never changes, so that an edit is an upsert.
CREATE TABLE IF NOT EXISTS strategy_templates (
    created_at TIMESTAMP,
    template_id SYMBOL,
    name VARCHAR,
    description VARCHAR,
    strategy SYMBOL,
    parameters VARCHAR,
    version LONG,
    is_active BOOLEAN,
    updated_at TIMESTAMP
) TIMESTAMP(created_at) PARTITION BY YEAR WAL
DEDUP UPSERT KEYS(created_at, template_id);
