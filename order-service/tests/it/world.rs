//! What one test needs: a database, a topic, the service on both, and the judgement at the end.

use std::time::Duration;

use order_service::app::SCHEMA;
use serde_json::Value;
use sqlx::Transaction;
use testing::{Checker, Client, Database, History, Kafka, Postgres, Service, Setup, Topic, wait_until};

pub fn binary() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_order-service"))
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A test that does not ask for judgement at its end fails.
pub struct World {
    pub database: Database,
    pub topic: Topic,
    pub history: History,
    judged: bool,
}

impl World {
    /// On the stack's servers. The service creates the topic.
    pub async fn new() -> Self {
        Self::of(Database::new(&SCHEMA).await, Topic::unborn())
    }

    /// With a broker of the test's own.
    pub async fn with_kafka(kafka: &Kafka) -> Self {
        Self::of(Database::new(&SCHEMA).await, Topic::unborn_on(kafka))
    }

    /// With brokers that are none of the stack's.
    pub async fn with_brokers(brokers: String) -> Self {
        Self::of(Database::new(&SCHEMA).await, Topic::unborn_at(brokers))
    }

    /// With a Postgres of the test's own.
    pub async fn with_postgres(postgres: &Postgres) -> Self {
        Self::of(Database::on(postgres, &SCHEMA).await, Topic::unborn())
    }

    fn of(database: Database, topic: Topic) -> Self {
        Self { database, topic, history: History::default(), judged: false }
    }

    pub fn setup(&self) -> Setup {
        let setup = binary().set("database.url", self.database.url()).set("kafka.brokers", &self.topic.brokers);
        setup
            .set("kafka.topic", &self.topic.name)
            .set("publisher.outage_backoff_max", "500ms")
            .set("instance.takeover_after", "1s")
    }

    pub fn client(&self, service: &Service) -> Client {
        Client::new(service.api(), &self.history)
    }

    /// Puts orders and their messages into the table, as a process left them that is gone. Its
    /// identity, still listed, is `owner`.
    pub async fn left_behind(&self, count: u64, owner: i64) {
        let known = format!("INSERT INTO instances (instance_id) VALUES ({owner}) ON CONFLICT DO NOTHING");
        self.database.execute(&known).await;
        self.database.execute(&insertion(count, owner)).await;
        self.remember_left().await;
    }

    /// Takes the orders of [`insertion`] for asked for and answered.
    pub async fn remember_left(&self) {
        let placed = "SELECT order_ref(order_id), customer_ref FROM orders WHERE customer_ref LIKE 'left-%'";
        let placed: Vec<(String, String)> = sqlx::query_as(placed).fetch_all(&self.database.pool).await.unwrap();
        placed.iter().for_each(|(order, customer)| self.history.add(order, customer));
    }

    /// From now on whoever inserts a row like this waits for the end of the transaction given back, with
    /// all that it has done and locked so far.
    pub async fn insertions_wait(&self, table: &str, which: &str) -> Transaction<'static, sqlx::Postgres> {
        let waits = format!(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock(42, 42); RETURN new; END $$;
             CREATE TRIGGER waits BEFORE INSERT ON {table} FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION wait()"
        );
        self.database.execute(&waits).await;
        let mut held = self.database.pool.begin().await.unwrap();
        sqlx::raw_sql("SELECT pg_advisory_xact_lock(42, 42)").execute(&mut *held).await.unwrap();
        held
    }

    /// Waits until a statement of the service waits for a lock.
    pub async fn a_statement_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND application_name LIKE 'order-service%' AND datname = current_database()";
        wait_until("a statement waits", seconds(20), async || self.database.number(waiting).await > 0).await;
    }

    pub async fn count(&self, state: &str) -> i64 {
        self.database.number(&format!("SELECT count(*) FROM outbox WHERE state = '{state}'")).await
    }

    /// Waits until no message is unpublished.
    pub async fn at_rest(&self, limit: Duration) {
        wait_until("no message is unpublished", limit, async || self.count("unpublished").await == 0).await;
    }

    /// Waits until the server has noticed that the service is gone.
    pub async fn has_no_sessions(&self) {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'order-service%'";
        wait_until("no session is left", seconds(10), async || self.database.number(sessions).await == 0).await;
    }

    /// Fails the test unless everything promised holds, and nothing is left undone.
    pub async fn judge(self) {
        self.judge_with(|checker| checker).await;
    }

    /// As [`World::judge`], where not even the topic needs to be there.
    pub async fn judge_nothing_placed(mut self) {
        self.judged = true;
        assert_eq!(self.database.number("SELECT count(*) + (SELECT count(*) FROM outbox) FROM orders").await, 0);
    }

    pub async fn judge_with(mut self, allow: impl FnOnce(Checker) -> Checker) {
        self.judged = true;
        allow(Checker::new(&self.database.pool, &self.topic, &self.history)).judge().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.judged || std::thread::panicking(), "the test ended without judgement");
    }
}

/// Inserts orders, their lines and their messages, as a placement of `owner` does.
pub fn insertion(count: u64, owner: i64) -> String {
    format!(
        r#"
        WITH incoming AS (
            SELECT nextval('order_number') AS order_id,
                (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                    || '7' || substr(gen_random_uuid()::text, 16))::uuid AS message_ref,
                to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at
            FROM generate_series(1, {count})
        ), ordered AS (
            INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at)
            SELECT order_id, 'left-' || order_id, 1, now() FROM incoming
        ), itemised AS (
            INSERT INTO order_items (order_id, line_number, product_id, quantity)
            SELECT order_id, 1, gen_random_uuid(), 1 FROM incoming
        )
        INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers)
        SELECT message_ref, order_id, 'ORDER_CREATED', now(), {owner}, order_ref(order_id),
            format('{{"messageRef":"%s","activityTypeCode":"ORDER_CREATED","activityAt":"%s","orderRef":"%s","orderVersion":1}}',
                message_ref, at, order_ref(order_id)),
            ARRAY['ce_specversion', '1.0', 'ce_id', message_ref::text, 'ce_type', 'summarisation.ORDER_CREATED.v1',
                'ce_source', '/order-service', 'ce_time', at, 'content-type', 'application/json']
        FROM incoming
        "#
    )
}

/// The identity that an instance has taken last.
pub fn identity(service: &Service) -> i64 {
    let taken = |line: &Value| {
        ["took an identity", "took a new identity"]
            .contains(&line["message"].as_str()?)
            .then(|| line["instance"].as_i64())?
    };
    service.log().iter().rev().find_map(taken).expect("it has an identity")
}

/// What an instance logs when it declares another one ended.
pub const TAKEN_OVER: &str = "another instance is gone";
