-- The keys under which callers placed orders, each with all it takes to give the same answer again:
-- what an order's number and time do not tell of its answer is in the request, whose fingerprint is
-- kept. The order's status is not: the answer tells the one it began with.
CREATE TABLE idempotency_keys (
    -- SHA-256 of caller and key: of one length whatever they are, and no text of a caller's.
    caller_key bytea NOT NULL,
    -- SHA-256 of the request as it was understood.
    fingerprint bytea NOT NULL,
    order_id bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller_key),
    CONSTRAINT idempotency_keys_caller_key_length CHECK (octet_length(caller_key) = 32),
    CONSTRAINT idempotency_keys_fingerprint_length CHECK (octet_length(fingerprint) = 32)
);

-- The purge takes the oldest first.
CREATE INDEX idempotency_keys_oldest ON idempotency_keys (placed_at);
