-- Figures of days that are not what was counted of their minutes, since when by the same number: what is on its way
-- from a minute to its day is over by the next look, what was changed by hand is not.
CREATE TABLE differing_figures (
    activity_date date NOT NULL,
    activity_type_code text NOT NULL,
    expected bigint NOT NULL,
    counted bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT differing_figures_pkey PRIMARY KEY (activity_date, activity_type_code)
);
