DROP FUNCTION announced_to();
DROP TABLE announced;
DROP TABLE log_progress;
