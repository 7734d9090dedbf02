CREATE TABLE parcels (
    parcel_id uuid NOT NULL,
    recipient text NOT NULL,
    booked_at timestamptz NOT NULL,
    CONSTRAINT parcels_pkey PRIMARY KEY (parcel_id),
    CONSTRAINT parcels_recipient_length CHECK (char_length(recipient) BETWEEN 1 AND 64)
);
