-- When the entry of an imported member was last changed where it comes from, in seconds since the Unix epoch: the name in an older
-- list replaces no newer one.
ALTER TABLE people ADD COLUMN named_at BIGINT;
