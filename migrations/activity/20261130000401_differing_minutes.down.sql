DROP VIEW differing_minutes;
