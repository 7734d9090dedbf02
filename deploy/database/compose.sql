-- The databases and roles of docker-compose.yml. Its Postgres runs this when it makes its volume.
CREATE ROLE orders_owner LOGIN PASSWORD 'orders_owner';
CREATE ROLE order_service LOGIN PASSWORD 'order_service';
CREATE DATABASE orders;
\connect orders
\set owner orders_owner
\set service order_service
\i /privileges.sql

CREATE ROLE activity_owner LOGIN PASSWORD 'activity_owner';
CREATE ROLE activity_service LOGIN PASSWORD 'activity_service';
CREATE DATABASE activity;
\connect activity
\set owner activity_owner
\set service activity_service
\i /privileges.sql
