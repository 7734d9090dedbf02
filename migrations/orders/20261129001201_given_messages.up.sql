-- Messages whose key and fields are given, of services other than this one: format 2. An order's has neither, for both
-- follow from its number and version. Such a column costs a row without it nothing. An older order-service goes on
-- working.
ALTER TABLE outbox ADD COLUMN key text, ADD COLUMN fields text;
ALTER TABLE rejected_messages ADD COLUMN key text, ADD COLUMN fields text;
