DROP TABLE order_items;
DROP TABLE orders;
DROP FUNCTION order_ref(bigint);
DROP SEQUENCE order_number;
