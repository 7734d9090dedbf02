-- Who changed what, when and why. Rows are added and read, never changed: the service's role can do nothing else.
CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    -- The subject of the token, the name given on the command line, or the address that asked the management port.
    actor text NOT NULL,
    via text NOT NULL,
    action text NOT NULL,
    -- What was changed, as the API names it.
    subject text NOT NULL,
    reason text,
    request_id text,
    -- Of the command line only, where anybody may give any name: the system's user and the database's role.
    os_user text,
    database_role text,
    CONSTRAINT audit_pkey PRIMARY KEY (at, audit_id),
    CONSTRAINT audit_via_known CHECK (via IN ('api', 'command', 'management'))
);

CREATE INDEX audit_subject ON audit (subject);
CREATE INDEX audit_actor ON audit (actor, at, audit_id);
CREATE INDEX audit_action ON audit (action, at, audit_id);
