//! The rows of a service and the message that tells of them: both, or neither.

use std::time::Duration;

use outbox::{
    message::{Format, Service},
    start::{self, Pools, Schema},
    transaction::{self, Activity, ActivityError, TransactError, Transactions},
};
use serde_json::Map;
use shared::{
    contract::message::ActivityTypeCode,
    operators::management::exposition::Exposition,
    runtime::{
        config::Reader,
        database::{self, Tables},
        health::Health,
        lifecycle::{Shutdown, Tasks},
        traces::TraceContext,
    },
};
use sqlx::migrate::Migrator;
use testing::{Database, Topic, wait_until};

static OUTBOX: Migrator = sqlx::migrate!("./migrations");
const DEFAULTS: &str = "[database]\nmax_connections = 4\nallow_plaintext = false\n";
const THINGS: Service = Service { name: "things", source: "/things", format: Format::Given };

struct World {
    database: Database,
    transactions: Transactions,
    // Its tasks run as long as it is there.
    _tasks: Tasks,
}

impl World {
    async fn new() -> Self {
        let database = Database::new(&OUTBOX).await;
        database.execute("CREATE TABLE things (name text PRIMARY KEY)").await;
        database.execute("GRANT SELECT, INSERT ON things TO PUBLIC").await;
        Self::on(database).await
    }

    async fn on(database: Database) -> Self {
        let file = std::env::temp_dir().join(format!("{}.toml", uuid::Uuid::now_v7()));
        let (url, topic) = (database.url(), Topic::unborn());
        let (brokers, topic) = (topic.brokers, topic.name);
        let given = format!(
            "[database]\nurl = \"{url}\"\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\n\
             progress_topic = \"{topic}.progress\"\n[instance]\ntakeover_after = \"1s\"\n"
        );
        std::fs::write(&file, given).unwrap();
        let mut reader = Reader::new(DEFAULTS, "THINGS", Some(&file)).unwrap().with_defaults(outbox::DEFAULTS);
        let settings = database::Settings::read(&mut reader);
        let of_outbox = outbox::Settings::read(&mut reader, THINGS, &settings);
        let of_transactions = transaction::Settings::read(&mut reader);
        reader.finish().unwrap();
        std::fs::remove_file(file).unwrap();
        let (pool, requests) = (settings.pool("things").unwrap(), settings.request_pool("things requests").unwrap());
        let health = Health::default();
        let mut tasks = Tasks::new(health.clone(), Shutdown::default());
        let tables = Tables { service: "things", migrations: &OUTBOX, mark: "things" };
        let schema = Schema { tables, needed: &[("things", "INSERT")] };
        let begun = start::begin(
            &of_outbox,
            &settings,
            Pools { work: &pool, requests: &requests },
            schema,
            health.task("database"),
        );
        let begun = begun.await.unwrap();
        let exposition = Exposition::default();
        let (transactions, _) = begun.start_transactions(&of_transactions, &mut tasks, &exposition).unwrap();
        Self { database, transactions, _tasks: tasks }
    }

    async fn things(&self) -> i64 {
        self.database.number("SELECT count(*) FROM things").await
    }

    async fn messages(&self) -> i64 {
        self.database.number("SELECT count(*) FROM outbox").await
    }
}

fn activity(name: &str) -> Activity {
    let code = ActivityTypeCode::parse("THING_MADE").unwrap();
    Activity::new(code, name, &Map::new(), TraceContext::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_nothing_to_tell_nothing_is_written() {
    let world = World::new().await;
    let told = world.transactions.transact(activity("one"), |transaction, _| {
        Box::pin(
            async move { sqlx::query("INSERT INTO things VALUES ('one')").execute(transaction).await.map(|_| false) },
        )
    });
    assert_eq!(told.await.unwrap(), None);
    assert_eq!((world.things().await, world.messages().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_refuses_leaves_no_message() {
    let world = World::new().await;
    for expected in [true, false] {
        let told = world.transactions.transact(activity("one"), |transaction, _| {
            Box::pin(async move {
                sqlx::query("INSERT INTO things VALUES ('one')").execute(transaction).await.map(|_| true)
            })
        });
        match told.await {
            Ok(Some(_)) if expected => {}
            Err(TransactError::Refused(_)) if !expected => {}
            other => panic!("{other:?}"),
        }
        assert_eq!((world.things().await, world.messages().await), (1, 1));
    }
}

/// Postgres answers COMMIT with ROLLBACK then, and sqlx takes that for success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_the_service_passes_over_is_no_success() {
    let world = World::new().await;
    let told = world.transactions.transact(activity("one"), |transaction, _| {
        Box::pin(async move {
            sqlx::query("INSERT INTO things VALUES ('one')").execute(&mut *transaction).await?;
            drop(sqlx::query("SELECT 1 / 0").execute(transaction).await);
            Ok(true)
        })
    });
    assert!(matches!(told.await, Err(TransactError::Refused(_))));
    assert_eq!((world.things().await, world.messages().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_identity_that_others_have_ended_it_is_done_under_the_next_one() {
    let world = World::new().await;
    // Whatever a role's sessions begin with.
    let isolation = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L',
        current_database(), 'repeatable read'); END $$";
    world.database.execute(isolation).await;
    world.database.end_sessions().await;
    world.database.execute("UPDATE instances SET ended_at = now()").await;
    // Where no answer comes in time it may be done all the same: asked again it is refused then.
    wait_until("it is done", Duration::from_secs(30), async || {
        let told = world.transactions.transact(activity("one"), |transaction, _| {
            Box::pin(async move {
                sqlx::query("INSERT INTO things VALUES ('one')").execute(transaction).await.map(|_| true)
            })
        });
        matches!(told.await, Ok(Some(_)) | Err(TransactError::Refused(_)))
    })
    .await;
    assert_eq!((world.things().await, world.messages().await), (1, 1));
    let living = "SELECT count(*) FROM outbox JOIN instances ON instance_id = instance WHERE ended_at IS NULL";
    assert_eq!(world.database.number(living).await, 1);
}

#[test]
fn what_cannot_be_told_is_found_out_before_anything_is_written() {
    let of = |key: &str, name: &str| {
        let code = ActivityTypeCode::parse("THING_MADE").unwrap();
        let fields = Map::from_iter([(name.to_owned(), "one".into())]);
        Activity::new(code, key, &fields, TraceContext::default()).err()
    };
    assert_eq!(of("one", "name"), None);
    assert_eq!(of("one", "messageRef"), Some(ActivityError::NameTaken));
    assert_eq!(of(&"k".repeat(16 * 1024), "name"), Some(ActivityError::TooLong));
}
