ALTER TABLE processed_messages RENAME TO processed_messages_after;
ALTER TABLE processed_messages_after RENAME CONSTRAINT processed_messages_pkey TO processed_messages_after_pkey;

CREATE TABLE processed_messages (
    message_ref uuid NOT NULL,
    activity_type_code text NOT NULL,
    -- The day it was counted for, so that the figures can be recounted from the keys alone.
    activity_date date NOT NULL,
    activity_at timestamptz NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT processed_messages_pkey PRIMARY KEY (message_ref)
);

INSERT INTO processed_messages
    (message_ref, activity_type_code, activity_date, activity_at, topic, partition, "offset", processed_at)
SELECT message_ref, activity_type_code, activity_date, activity_at, topic, partition, "offset", processed_at
FROM processed_messages_after;

CREATE INDEX processed_messages_oldest ON processed_messages (processed_at);

DROP TABLE key_day_ends;
DROP VIEW key_days;
DROP FUNCTION drop_key_partition, empty_key_partition, lock_key_partition, make_key_partition;
DROP TABLE processed_messages_after;
DROP FUNCTION key_day, key_day_begin, key_is_undated;
