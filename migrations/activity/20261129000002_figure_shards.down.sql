-- Whoever counts meanwhile comes before the copy, or finds the table gone.
LOCK TABLE daily_activity_shards IN ACCESS EXCLUSIVE MODE;

CREATE TABLE daily_activities_after (
    activity_date date NOT NULL,
    activity_type_code text NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT daily_activities_pkey PRIMARY KEY (activity_date, activity_type_code),
    CONSTRAINT daily_activities_type_fkey FOREIGN KEY (activity_type_code) REFERENCES activity_types (activity_type_code),
    CONSTRAINT daily_activities_quantity_positive CHECK (quantity > 0)
)
-- Few rows, each updated with every batch: room for the new version beside the old one.
WITH (fillfactor = 10);

INSERT INTO daily_activities_after (activity_date, activity_type_code, quantity)
SELECT activity_date, activity_type_code, quantity FROM daily_activities;

DROP VIEW daily_activities;
DROP TABLE daily_activity_shards;
ALTER TABLE daily_activities_after RENAME TO daily_activities;
