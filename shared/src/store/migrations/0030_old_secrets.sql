-- Each secret that was replaced is good until its own time, however often the secret is replaced after it.
ALTER TABLE webhooks ADD COLUMN old_secret_2 TEXT;
ALTER TABLE webhooks ADD COLUMN old_until_2 BIGINT;
ALTER TABLE webhooks ADD COLUMN old_secret_3 TEXT;
ALTER TABLE webhooks ADD COLUMN old_until_3 BIGINT;
ALTER TABLE http_bundles ADD COLUMN old_secret_2 TEXT;
ALTER TABLE http_bundles ADD COLUMN old_until_2 BIGINT;
ALTER TABLE http_bundles ADD COLUMN old_secret_3 TEXT;
ALTER TABLE http_bundles ADD COLUMN old_until_3 BIGINT;

-- Deliveries that their webhook has passed are not tried again.
UPDATE webhook_deliveries SET status = 'skipped' WHERE status = 'pending' AND EXISTS
    (SELECT 1 FROM webhooks w WHERE w.id = webhook_deliveries.webhook_id AND w.seq >= webhook_deliveries.seq);
