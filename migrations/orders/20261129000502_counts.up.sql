-- What was written in each minute, from the messages themselves: for whoever counts them to be held against.

-- How far the messages of each log are counted, each once. A log is whole when it is done and counted to its end.
CREATE TABLE counted_logs (
    instance bigint NOT NULL,
    counted_to bigint NOT NULL DEFAULT -1,
    is_whole boolean NOT NULL DEFAULT false,
    CONSTRAINT counted_logs_pkey PRIMARY KEY (instance)
);

-- By the minute and the type of what is counted so far.
CREATE TABLE message_counts (
    minute timestamptz NOT NULL,
    activity_type_code text NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT message_counts_pkey PRIMARY KEY (minute, activity_type_code)
);

-- The next minute to be told, one row. Of the time before this migration some logs are forgotten, and with them how
-- many messages they had.
CREATE TABLE told_counts (
    next_minute timestamptz NOT NULL,
    is_only boolean NOT NULL DEFAULT true,
    CONSTRAINT told_counts_pkey PRIMARY KEY (is_only),
    CONSTRAINT told_counts_only CHECK (is_only)
);

INSERT INTO told_counts (next_minute) VALUES (date_trunc('minute', now(), 'UTC') + interval '1 minute');
