DROP FUNCTION announcement;
