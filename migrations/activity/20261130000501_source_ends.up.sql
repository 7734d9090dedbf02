-- By partition an offset behind everything up to announced_to, as the source told it: what is not counted yet is known
-- again after a restart, however long ago a source that is away has told it. They are those of ends_to: a version that does
-- not know them moves announced_to alone.
-- Messages that had failed and are tried again are neither failed nor counted for a while.
ALTER TABLE sources ADD COLUMN ends jsonb, ADD COLUMN ends_to timestamptz, ADD COLUMN tried_again bigint NOT NULL DEFAULT 0;

-- Where a source had told that the partition ends, when it tells of an end before that one: whether the partition still is
-- the one that was counted is not known until a consumer has seen it.
ALTER TABLE consumer_positions ADD COLUMN told_end bigint;
