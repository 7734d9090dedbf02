-- How far the figures are complete: what the sources of activities tell of themselves, beside what is counted here.

CREATE TABLE sources (
    source text NOT NULL,
    -- The topic it writes to.
    topic text NOT NULL,
    -- Everything of this time or earlier is on the topic, or failed.
    announced_to timestamptz NOT NULL,
    -- The last of that is counted here, or in quarantine. Null before any is.
    counted_to timestamptz,
    unannounced bigint NOT NULL,
    oldest_unannounced_at timestamptz,
    failed bigint NOT NULL,
    -- Given up by operators of the source.
    discarded bigint NOT NULL,
    -- When it was heard of last, and where on the topic of progress that stands.
    told_at timestamptz NOT NULL DEFAULT now(),
    told_offset bigint NOT NULL,
    CONSTRAINT sources_pkey PRIMARY KEY (source)
);

-- What a source says it wrote in a closed minute, by type.
CREATE TABLE source_minutes (
    source text NOT NULL,
    minute timestamptz NOT NULL,
    quantities jsonb NOT NULL,
    -- When it was held against the keys, and what was counted instead where they differ.
    checked_at timestamptz,
    counted jsonb,
    CONSTRAINT source_minutes_pkey PRIMARY KEY (source, minute)
);

CREATE INDEX source_minutes_unchecked ON source_minutes (source, minute) WHERE checked_at IS NULL;
CREATE INDEX source_minutes_differing ON source_minutes (minute) WHERE counted IS NOT NULL;

-- Days of which everything was counted once, and what the figures were then: what they are more by came late.
CREATE TABLE complete_days (
    activity_date date NOT NULL,
    complete_at timestamptz NOT NULL DEFAULT now(),
    quantities jsonb NOT NULL,
    CONSTRAINT complete_days_pkey PRIMARY KEY (activity_date)
);
