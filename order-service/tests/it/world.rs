//! What one test needs: a database, a topic, the service on both, and the judgement at the end.

use std::time::Duration;

use order_service::app::MIGRATIONS;
use serde_json::Value;
use sqlx::Transaction;
use testing::{Checker, Client, Database, History, Kafka, Postgres, Service, Setup, Topic, UNPUBLISHED, wait_until};

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
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn())
    }

    /// With a broker of the test's own.
    pub async fn with_kafka(kafka: &Kafka) -> Self {
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn_on(kafka))
    }

    /// With brokers that are none of the stack's.
    pub async fn with_brokers(brokers: String) -> Self {
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn_at(brokers))
    }

    /// With a Postgres of the test's own.
    pub async fn with_postgres(postgres: &Postgres) -> Self {
        Self::of(Database::on(postgres, &MIGRATIONS).await, Topic::unborn())
    }

    /// On a database without a schema.
    pub fn unmigrated(database: Database) -> Self {
        Self::of(database, Topic::unborn())
    }

    fn of(database: Database, topic: Topic) -> Self {
        Self { database, topic, history: History::default(), judged: false }
    }

    pub fn setup(&self) -> Setup {
        let setup = binary().set("database.url", self.database.url()).set("kafka.brokers", &self.topic.brokers);
        setup
            .set("kafka.topic", &self.topic.name)
            .set("kafka.progress_topic", format!("{}.progress", self.topic.name))
            .set("publisher.outage_backoff_max", "500ms")
            .set("instance.takeover_after", "1s")
    }

    pub fn client(&self, service: &Service) -> Client {
        Client::new(service.api(), &self.history)
    }

    /// Puts orders and their messages into the tables, as a process left them that is gone. Its
    /// identity, still listed, is `log`.
    pub async fn left_behind(&self, count: u64, log: i64) {
        let known = format!("INSERT INTO instances (instance_id) VALUES ({log}) ON CONFLICT DO NOTHING");
        self.database.execute(&known).await;
        self.database.execute(&insertion(count, log)).await;
        self.remember_left().await;
    }

    /// Puts orders and their messages into the log of an identity that has ended: whoever looks next adopts it.
    /// The broker refuses `large` of them, where it takes no more than 12,000 bytes.
    pub async fn left_by_ended(&self, count: u64, large: u64) {
        let mut transaction = self.database.pool.begin().await.unwrap();
        let log = "INSERT INTO instances (instance_id, ended_at)
            SELECT (extract(epoch FROM now())::bigint << 20) | floor(random() * 1048576)::bigint, now() RETURNING instance_id";
        let log: i64 = sqlx::query_scalar(log).fetch_one(&mut *transaction).await.unwrap();
        let spoil = format!(
            "UPDATE outbox SET tracestate = (SELECT string_agg(md5(n::text || message_ref), '') FROM generate_series(1, 600) n)
            WHERE instance = {log} AND seq < {large}"
        );
        sqlx::raw_sql(&insertion(count, log)).execute(&mut *transaction).await.unwrap();
        sqlx::raw_sql(&spoil).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        self.remember_left().await;
    }

    /// Puts an order and its message into the tables, and has an operator want the message sent again.
    pub async fn left_to_be_retried(&self) {
        let mut transaction = self.database.pool.begin().await.unwrap();
        let log = "INSERT INTO instances (instance_id, ended_at, closed_at, done_at)
            SELECT (extract(epoch FROM now())::bigint << 20) | floor(random() * 1048576)::bigint, now(), now(), now()
            RETURNING instance_id";
        let log: i64 = sqlx::query_scalar(log).fetch_one(&mut *transaction).await.unwrap();
        let wanted = format!(
            "INSERT INTO rejected_messages (message_ref, instance, seq, order_id, order_version, activity_type_code,
                activity_at, format, failures, state)
            SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format, 0, 'retrying'
            FROM outbox WHERE instance = {log}"
        );
        sqlx::raw_sql(&insertion(1, log)).execute(&mut *transaction).await.unwrap();
        sqlx::raw_sql(&wanted).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        self.remember_left().await;
    }

    /// Makes a day of the outbox that is past its retention.
    pub async fn old_day(&self) {
        let day = "SELECT make_partition(date_trunc('day', now(), 'UTC') - interval '240 hours')";
        // Refused where an instance is dropping that very day: the caller asks again and again.
        sqlx::query(day).execute(&self.database.pool).await.ok();
    }

    /// Ends an identity, as another instance does that takes it for gone.
    pub async fn end(&self, log: i64) {
        self.database.execute(&format!("UPDATE instances SET ended_at = now() WHERE instance_id = {log}")).await;
    }

    /// The messages of a log that are not on the topic yet, as far as the tables tell.
    pub async fn unpublished_of(&self, log: i64) -> i64 {
        let mine = format!("SELECT count(*) FROM {UNPUBLISHED} AS m WHERE instance = {log}");
        self.database.number(&mine).await
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
        self.waits(&format!("BEFORE INSERT ON {table} FOR EACH ROW WHEN ({which})")).await
    }

    /// From now on whoever updates this column, of whichever rows, waits for the end of the transaction given back:
    /// its statement has begun, and has looked at no row yet.
    pub async fn updates_wait(&self, table: &str, column: &str) -> Transaction<'static, sqlx::Postgres> {
        let when = format!("BEFORE UPDATE OF {column} ON {table} FOR EACH STATEMENT");
        self.waits(&when).await
    }

    /// Whoever comes to a trigger waits for the end of the transaction given back.
    async fn waits(&self, when: &str) -> Transaction<'static, sqlx::Postgres> {
        let waits = format!(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock(42, 42); RETURN new; END $$;
             CREATE TRIGGER waits {when} EXECUTE FUNCTION wait()"
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
        self.database.number(&format!("SELECT count(*) FROM outbox_messages WHERE state = '{state}'")).await
    }

    /// Waits until no message is unpublished.
    pub async fn at_rest(&self, limit: Duration) {
        let unpublished = format!("SELECT count(*) FROM {UNPUBLISHED} AS m");
        wait_until("no message is unpublished", limit, async || self.database.number(&unpublished).await == 0).await;
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

    /// For a test that has taken away what the judgement asks for.
    pub fn without_judgement(mut self) {
        self.judged = true;
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

/// Inserts orders and their messages, as a placement under the identity `log` does.
pub fn insertion(count: u64, log: i64) -> String {
    format!(
        r#"
        WITH incoming AS (
            SELECT nextval('order_number') AS order_id, n,
                (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                    || '7' || substr(gen_random_uuid()::text, 16))::uuid AS message_ref
            FROM generate_series(1, {count}) AS n
        ), ordered AS (
            INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, product_ids, quantities)
            SELECT order_id, 'left-' || order_id, 1, now(), ARRAY[gen_random_uuid()], ARRAY[1] FROM incoming
        )
        INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format)
        SELECT message_ref, {log}, (SELECT coalesce(max(seq), -1) FROM outbox WHERE instance = {log}) + n,
            order_id, 1, 'ORDER_CREATED', now(), 1
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
