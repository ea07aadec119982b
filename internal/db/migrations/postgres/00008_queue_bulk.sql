-- +goose Up
-- Bulk mail lets other mail for its destination go first.
ALTER TABLE delivery ADD COLUMN bulk BIGINT NOT NULL DEFAULT 0;
DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (org, domain, bulk, next, expires) WHERE state = 'queued';

-- +goose Down
DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (org, domain, next, expires) WHERE state = 'queued';
ALTER TABLE delivery DROP COLUMN bulk;
