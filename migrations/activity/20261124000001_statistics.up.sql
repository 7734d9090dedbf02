CREATE TABLE activity_types (
    activity_type_code text NOT NULL,
    activity_type_name text NOT NULL,
    CONSTRAINT activity_types_pkey PRIMARY KEY (activity_type_code),
    CONSTRAINT activity_types_code_format CHECK (activity_type_code ~ '^[A-Z][A-Z0-9_]{0,63}$'),
    CONSTRAINT activity_types_name_length CHECK (char_length(activity_type_name) BETWEEN 1 AND 200)
);

INSERT INTO activity_types (activity_type_code, activity_type_name) VALUES
    ('ORDER_CREATED', 'Order Created'),
    ('ORDER_COMPLETED', 'Order Completed'),
    ('ORDER_CANCELLED', 'Order Cancelled');

-- One row: the zone whose midnight ends a day. Kept from the first start on, because a day
-- that was counted in one zone cannot be read in another.
CREATE TABLE business_calendar (
    only_row boolean NOT NULL DEFAULT true,
    time_zone text NOT NULL,
    CONSTRAINT business_calendar_pkey PRIMARY KEY (only_row),
    CONSTRAINT business_calendar_one_row CHECK (only_row)
);

CREATE TABLE daily_activities (
    activity_date date NOT NULL,
    activity_type_code text NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT daily_activities_pkey PRIMARY KEY (activity_date, activity_type_code),
    CONSTRAINT daily_activities_type_fkey FOREIGN KEY (activity_type_code) REFERENCES activity_types (activity_type_code),
    CONSTRAINT daily_activities_quantity_positive CHECK (quantity > 0)
)
-- Few rows, each updated with every batch: room for the new version beside the old one.
WITH (fillfactor = 10);

-- The key of every message that was counted: what makes a second delivery harmless.
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
