CREATE SEQUENCE order_number AS bigint;

-- How an order is named outside: OS, the number with at least six digits, -ORD.
CREATE FUNCTION order_ref(order_id bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'OS' || lpad(order_id::text, greatest(6, length(order_id::text)), '0') || '-ORD';

CREATE TABLE orders (
    order_id bigint NOT NULL,
    customer_ref text NOT NULL,
    status text NOT NULL DEFAULT 'New',
    -- Grows by one with each change; announced with it, so that a reader of the topic can
    -- tell the order of two messages that arrive the wrong way round.
    version integer NOT NULL DEFAULT 1,
    number_of_items smallint NOT NULL,
    placed_at timestamptz NOT NULL,
    CONSTRAINT orders_pkey PRIMARY KEY (order_id),
    CONSTRAINT orders_customer_ref_length CHECK (char_length(customer_ref) BETWEEN 1 AND 64),
    CONSTRAINT orders_status_known CHECK (status IN ('New', 'Pending', 'Placed', 'Fulfilled', 'Cancelled')),
    CONSTRAINT orders_version_positive CHECK (version >= 1),
    CONSTRAINT orders_number_of_items_in_range CHECK (number_of_items BETWEEN 1 AND 200)
);

-- The lists are newest first and page by (placed_at, order_id): one index for all orders, one
-- for those of a customer. Both grow at their right end only or at one place per customer.
CREATE INDEX orders_newest ON orders (placed_at, order_id);
CREATE INDEX orders_newest_of_customer ON orders (customer_ref, placed_at, order_id);

CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line_number smallint NOT NULL,
    product_id uuid NOT NULL,
    quantity integer NOT NULL,
    CONSTRAINT order_items_pkey PRIMARY KEY (order_id, line_number),
    CONSTRAINT order_items_order_fkey FOREIGN KEY (order_id) REFERENCES orders (order_id) ON DELETE CASCADE,
    CONSTRAINT order_items_quantity_in_range CHECK (quantity BETWEEN 1 AND 1000000)
);
