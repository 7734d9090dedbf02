DROP FUNCTION purge_orders;
