//! What administrators set for a role or a database, and a service has to work with all the same.

use crate::Database;

/// A name, and settings as `ALTER DATABASE` takes them.
pub const OF_ADMINISTRATORS: [(&str, &[&str]); 6] = [
    (
        "how values are written",
        &[
            "DateStyle = 'SQL, DMY'",
            "IntervalStyle = 'sql_standard'",
            "TimeZone = 'Asia/Kolkata'",
            "bytea_output = 'escape'",
            "extra_float_digits = -15",
            "lc_messages = 'C'",
            "lc_numeric = 'C'",
            "quote_all_identifiers = on",
        ],
    ),
    (
        "how statements are read",
        &[
            "standard_conforming_strings = off",
            "backslash_quote = off",
            "array_nulls = off",
            "transform_null_equals = on",
            "check_function_bodies = off",
            "row_security = off",
        ],
    ),
    (
        "plans",
        &[
            "plan_cache_mode = force_custom_plan",
            "enable_seqscan = off",
            "jit = on",
            "jit_above_cost = 0",
            "from_collapse_limit = 1",
            "join_collapse_limit = 1",
            "work_mem = '64kB'",
        ],
    ),
    ("other plans", &["plan_cache_mode = force_generic_plan", "enable_indexscan = off", "enable_hashjoin = off"]),
    (
        "time-outs",
        &[
            "statement_timeout = '1s'",
            "lock_timeout = '100ms'",
            "idle_in_transaction_session_timeout = '1s'",
            "idle_session_timeout = '1s'",
            "tcp_user_timeout = '1s'",
        ],
    ),
    (
        "transactions",
        &[
            "default_transaction_isolation = 'serializable'",
            "default_transaction_deferrable = on",
            "synchronous_commit = off",
            "max_parallel_workers_per_gather = 0",
            "log_statement = 'all'",
        ],
    ),
];

impl Database {
    /// From now on whoever writes into one of these tables is refused where a crash could take the commit back, or by a
    /// snapshot of before.
    pub async fn wants_durable_commits(&self, tables: &[&str]) {
        self.execute(
            "CREATE FUNCTION refuse_unless_durable() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'a crash could take this back'; END IF;
                IF current_setting('transaction_isolation') <> 'read committed' THEN RAISE 'not by its own snapshot'; END IF;
                RETURN NULL;
            END $$",
        )
        .await;
        for table in tables {
            self.execute(&format!(
                "CREATE TRIGGER refuse_unless_durable AFTER INSERT OR UPDATE ON {table}
                FOR EACH STATEMENT EXECUTE FUNCTION refuse_unless_durable()"
            ))
            .await;
        }
    }

    /// For every session that begins from now on.
    pub async fn set(&self, settings: &[&str]) {
        for setting in settings {
            // Of the database; those of a role hold for all tests' databases.
            let statement = format!(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET ', current_database()) || $s${setting}$s$; END $$"
            );
            self.execute(&statement).await;
        }
    }
}
