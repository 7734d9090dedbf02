//! The third service from outside, with activity-service beside it.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use testing::{Database, Service, Setup, Topic, binary, fail_points, wait_until};

struct World {
    parcels: Database,
    activity: Database,
    topic: Topic,
}

impl World {
    async fn new() -> Self {
        let migrated = async |setup: Setup| {
            let database = Database::empty().await;
            let done = setup.set("database.url", database.owner_url()).run(&["migrate"]).await;
            assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
            database
        };
        let parcels = migrated(Setup::new(env!("CARGO_BIN_EXE_parcels"))).await;
        let activity = migrated(Setup::new(binary("activity-service"))).await;
        Self { parcels, activity, topic: Topic::unborn() }
    }

    fn setup(&self) -> Setup {
        self.on_topic(Setup::new(env!("CARGO_BIN_EXE_parcels")).set("database.url", self.parcels.url()))
            .set("kafka.topic", &self.topic.name)
            .set("instance.takeover_after", "1s")
    }

    fn on_topic(&self, setup: Setup) -> Setup {
        setup
            .set("kafka.brokers", &self.topic.brokers)
            .set("kafka.progress_topic", format!("{}.progress", self.topic.name))
    }

    /// activity-service, which knows what a parcel is.
    async fn counting(&self) -> Service {
        let setup = Setup::new(binary("activity-service")).set("database.url", self.activity.url());
        let setup = self.on_topic(setup).set("kafka.topics", &self.topic.name);
        let service = setup.set("kafka.group_id", format!("group-of-{}", self.topic.name)).start().await;
        let url = format!("{}/activity-types/PARCEL_SHIPPED", service.api());
        let known = reqwest::Client::new().put(url).json(&json!({"activityTypeName": "Parcel Shipped"})).send().await;
        assert_eq!(known.unwrap().status(), 201);
        service
    }

    async fn booked(&self) -> i64 {
        self.parcels.number("SELECT count(*) FROM parcels").await
    }

    /// Each parcel has its message, and each message its parcel.
    async fn is_whole(&self) {
        let apart = "SELECT count(*) FROM parcels FULL JOIN outbox ON key = parcel_id::text
            WHERE parcel_id IS NULL OR message_ref IS NULL OR booked_at <> activity_at";
        assert_eq!(
            self.parcels.number(apart).await,
            0,
            "a parcel without its message, or a message without its parcel"
        );
    }

    /// Waits until every parcel that was booked is counted; none twice.
    async fn is_counted(&self, counting: &Service) {
        self.is_whole().await;
        let booked = self.booked().await;
        let url =
            format!("{}/activities?from=2026-01-01&to=2027-01-31&activityTypeCode=PARCEL_SHIPPED", counting.api());
        let url = url.replace("2026-01-01", &day(-1)).replace("2027-01-31", &day(1));
        wait_until("every parcel is counted", Duration::from_secs(60), async || {
            let figures: Vec<Value> = reqwest::get(&url).await.unwrap().json().await.unwrap();
            let counted: i64 = figures.iter().map(|figure| figure["quantity"].as_i64().unwrap()).sum();
            assert!(counted <= booked, "{counted} of {booked}");
            counted == booked
        })
        .await;
    }
}

/// So many days from now.
fn day(days: i64) -> String {
    (time::OffsetDateTime::now_utc() + time::Duration::days(days)).date().to_string()
}

async fn book(api: &str) -> Option<(u16, Value)> {
    let answer = reqwest::Client::new().post(format!("{api}/parcels")).json(&json!({"recipient": "C-1001"})).send();
    let answer = answer.await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

/// Books parcels, eight at a time, until `stop`; how many were acknowledged.
async fn load(api: &str, stop: &AtomicBool) -> i64 {
    let caller = async || {
        let mut acknowledged = 0;
        while !stop.load(Ordering::Relaxed) {
            match book(api).await {
                Some((201, _)) => acknowledged += 1,
                // It is dead: whoever has killed it says so in a moment.
                _ => tokio::task::yield_now().await,
            }
        }
        acknowledged
    };
    join_all(std::iter::repeat_with(caller).take(8)).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_that_is_booked_over_http_is_counted() {
    let world = World::new().await;
    let (counting, parcels) = (world.counting().await, world.setup().start().await);
    let (status, parcel) = book(&parcels.api()).await.unwrap();
    assert_eq!(status, 201);
    world.is_counted(&counting).await;
    let [message] = &world.topic.dump().await[..] else { panic!("one message") };
    assert_eq!(message.header("ce_source"), "/parcels");
    assert_eq!(message.text("parcelId").unwrap(), parcel["parcelId"].as_str().unwrap());
    assert_eq!((parcels.stop().await, counting.stop().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn it_has_what_every_service_has() {
    let world = World::new().await;
    // The password in it may change.
    let file = std::env::temp_dir().join(uuid::Uuid::now_v7().to_string());
    std::fs::write(&file, world.parcels.url()).unwrap();
    let setup = Setup::new(env!("CARGO_BIN_EXE_parcels")).set("database.url_file", file.display());
    let parcels = world.on_topic(setup).set("kafka.topic", &world.topic.name).start().await;
    let health = parcels.health().await;
    for task in ["credentials", "metrics", "runtime", "topics"] {
        assert!(health["components"][task].is_object(), "{task}: {health}");
    }
    assert!(parcels.metrics().await.sum("task_state") > 0.0, "how each task is doing");
    assert_eq!(parcels.stop().await, Some(0));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_nobody_can_mean_is_refused() {
    let world = World::new().await;
    for wrong in [&["migrat"][..], &["--config", "x"], &["serve", "now"]] {
        assert_eq!(world.setup().run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    let compacted = Topic::new(1, &[("cleanup.policy", "compact")]).await;
    let refused = world.setup().set("kafka.topic", &compacted.name).run(&["serve"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));

    let parcels = world.setup().start().await;
    let list = reqwest::Client::new().post(format!("{}/parcels", parcels.api())).json(&json!(["C-1001"])).send().await;
    assert_eq!(list.unwrap().status(), 422);
    assert_eq!(world.booked().await, 0);
    assert_eq!(parcels.stop().await, Some(0));
}

#[tokio::test]
async fn its_progress_is_told_where_activity_service_reads_it() {
    let counting = Setup::new(binary("activity-service")).set("database.url", "postgres://localhost/activity");
    let shown = counting.run(&["config"]).await;
    let topic = |settings: &str| settings.lines().find(|line| line.starts_with("progress_topic")).map(str::to_owned);
    let read = topic(&String::from_utf8_lossy(&shown.stdout));
    assert!(read.is_some() && read == topic(include_str!("../../default.toml")), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_service_killed_in_the_middle_each_parcel_is_counted_once() {
    let world = World::new().await;
    let counting = world.counting().await;
    let mut acknowledged = 0;
    for _ in 0..3 {
        let (service, stop) = (world.setup().start().await, AtomicBool::new(false));
        let api = service.api();
        let killing = async {
            let goal = world.booked().await + 50;
            wait_until("some are booked", Duration::from_secs(60), async || world.booked().await >= goal).await;
            service.kill().await;
            stop.store(true, Ordering::Relaxed);
        };
        acknowledged += tokio::join!(load(&api, &stop), killing).0;
    }
    let parcels = world.setup().start().await;
    world.is_counted(&counting).await;
    assert!(acknowledged >= 100 && world.booked().await >= acknowledged, "{acknowledged} were acknowledged");
    assert_eq!((parcels.stop().await, counting.stop().await), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_it_dies_in_a_transaction_parcel_and_message_are_both_there_or_neither() {
    let world = World::new().await;
    let counting = world.counting().await;
    let points = [
        ("transaction::announced", 1),
        ("transaction::before", 0),
        ("transaction::committed", 1),
        ("transaction::uncommitted", 0),
    ];
    let all = fail_points(&["shared/outbox"]).into_iter().filter(|point| point.name.starts_with("transaction::"));
    assert!(all.filter(|point| point.kills).map(|point| point.name).eq(points.map(|(point, _)| point)), "each is here");
    for (point, booked) in points {
        let before = world.booked().await;
        let mut dying = world.setup().failpoint(point, "return").start().await;
        assert!(book(&dying.api()).await.is_none(), "{point} kills before there is an answer");
        dying.ended(Duration::from_secs(10)).await;
        // The server may carry out what was on its way.
        wait_until(point, Duration::from_secs(10), async || world.booked().await == before + booked).await;
        world.is_whole().await;
    }
    let parcels = world.setup().start().await;
    world.is_counted(&counting).await;
    assert_eq!((parcels.stop().await, counting.stop().await), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_books_one_parcel() {
    let world = World::new().await;
    let counting = world.counting().await;
    let parcels = world.setup().failpoint("transaction::answer_lost", "2*return->off").start().await;
    assert_eq!(book(&parcels.api()).await.unwrap().0, 201);
    assert_eq!(world.booked().await, 1);
    world.is_counted(&counting).await;
    assert_eq!((parcels.stop().await, counting.stop().await), (Some(0), Some(0)));
}
