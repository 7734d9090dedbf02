//! What is told of how complete the figures are is true, and says where they are not what was written.

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord, Producer},
};
use serde_json::{Value, json};
use testing::{Service, wait_until};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    lag::{send_open, transactional},
    lost_topic::is_deleted,
    shop::Shop,
    world::{CREATED, World, client, created, many, seconds},
};

const SOURCE: &str = "/order-service";

pub async fn completeness(service: &Service) -> Value {
    let answer = client(service).get("/completeness").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

pub async fn of_day(service: &Service, day: &str) -> Value {
    let answer = client(service).get(&format!("/activities/{day}/completeness")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

pub fn text(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap()
}

pub fn moment(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap()
}

/// What a source tells.
pub fn announcement(world: &World, to: &str, end: usize) -> Value {
    json!({"source": SOURCE, "topic": world.topic().name, "announcedTo": to, "ends": {"0": end}, "unannounced": 3,
        "oldestUnannouncedAt": "2026-11-22T00:00:00Z", "failed": 0})
}

/// Tells it, as order-service does.
pub async fn tell(world: &World, told: &[Value]) {
    let topic = testing::Topic { name: format!("{}.progress", world.topic().name), ..world.topic().clone() };
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &topic.brokers)
        .set("allow.auto.create.topics", "true")
        .create()
        .unwrap();
    for one in told {
        let value = one.to_string();
        let record = FutureRecord::to(&topic.name).partition(0).key(SOURCE).payload(&value);
        producer.send(record, seconds(10)).await.unwrap();
    }
}

/// Every minute of the day from `begin` on that ends by `to`, none of which anything was written in but those of `written`.
pub fn minutes(
    world: &World,
    begin: OffsetDateTime,
    written: &[(OffsetDateTime, i64)],
    to: &str,
    end: usize,
) -> Vec<Value> {
    let minute = |number| {
        let from = begin + Duration::minutes(number);
        let quantity: i64 = written.iter().filter(|(at, _)| *at == from).map(|(_, quantity)| quantity).sum();
        let quantities = if quantity > 0 { json!({CREATED: quantity}) } else { json!({}) };
        let mut one = announcement(world, to, end);
        one["counts"] = json!({"from": text(from), "to": text(from + Duration::minutes(1)), "quantities": quantities});
        one
    };
    (0..1440).map(minute).take_while(|one| one["counts"]["to"].as_str().map(moment) <= Some(moment(to))).collect()
}

pub async fn progress_topic(world: &World) {
    let topic = testing::Topic { name: format!("{}.progress", world.topic().name), ..world.topic().clone() };
    // More than the one that is written and read.
    topic.create(3, &[]).await;
}

/// The exit code of `figures verify`, and the first line it prints.
pub async fn verify(world: &World) -> (i32, String) {
    let done = world.setup().run(&["figures", "verify"]).await;
    let printed = String::from_utf8(done.stdout).unwrap();
    (done.status.code().unwrap(), printed.lines().next().unwrap_or_default().to_owned())
}

/// Holds: Nothing is called complete that is not counted, in quarantine, failed or discarded.
#[tokio::test]
async fn nothing_is_said_to_be_complete_before_its_source_has_told_and_all_of_that_is_counted() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    world.produce(&many(5)).await;
    let service = world.setup().start().await;
    world.has_counted(5, seconds(20)).await;
    assert_eq!(completeness(&service).await["completeTo"], Value::Null);
    assert_eq!(of_day(&service, "2026-11-20").await["state"], "unknown");
    tell(&world, &[announcement(&world, "2026-11-20T13:00:00Z", 5), announcement(&world, "2026-11-21T13:00:00Z", 6)])
        .await;
    let reaches = async |to: &str| {
        wait_until(&format!("complete up to {to}"), seconds(20), async || {
            completeness(&service).await["completeTo"].as_str().map(moment) == Some(moment(to))
        })
        .await;
    };
    reaches("2026-11-20T13:00:00Z").await;
    let told = completeness(&service).await;
    let source = &told["sources"][0];
    assert_eq!(moment(source["announcedTo"].as_str().unwrap()), moment("2026-11-21T13:00:00Z"), "{told}");
    assert_eq!((&source["source"], &source["unannounced"]), (&SOURCE.into(), &3.into()));
    assert!(told["freshnessSeconds"].as_f64().unwrap() > 0.0 && source["silentSince"].is_null(), "{told}");
    assert_eq!(of_day(&service, "2026-11-20").await["state"], "behind", "the sixth message is not there");
    world.produce(&[created()]).await;
    reaches("2026-11-21T13:00:00Z").await;
    assert_eq!(of_day(&service, "2026-11-20").await["state"], "unknown", "nobody told what was written in its minutes");
    assert_eq!(of_day(&service, "2999-01-01").await["state"], "open");
    // It is remembered, and read again it does not go back.
    assert_eq!(service.stop().await, Some(0));
    let service = world.setup().start().await;
    assert!(completeness(&service).await["completeTo"].as_str().map(moment) == Some(moment("2026-11-21T13:00:00Z")));
    world.database.execute("UPDATE sources SET told_at = now() - interval '2 minutes'").await;
    assert!(!completeness(&service).await["sources"][0]["silentSince"].is_null(), "it is named");
    world.judge().await;
}

pub async fn complete_to(service: &Service) -> Option<OffsetDateTime> {
    completeness(service).await["completeTo"].as_str().map(moment)
}

async fn is_complete_to(service: &Service, to: OffsetDateTime) {
    wait_until(&format!("complete up to {to}"), seconds(30), async || complete_to(service).await >= Some(to)).await;
}

/// Holds: Nothing is called complete that stands behind a transaction of another producer, and the end of that
/// transaction, which is no message, holds nothing up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_behind_an_open_transaction_is_not_complete_and_its_marker_holds_nothing_up() {
    let shop = Shop::new().await;
    let (counting, ordering) = (shop.activity.setup().start().await, shop.ordering().set("kafka.partitions", 1));
    let ordering = ordering.start().await;
    let orders = shop.client(&ordering);
    orders.place_one().await;
    shop.activity.has_counted(1, seconds(20)).await;
    is_complete_to(&counting, OffsetDateTime::now_utc()).await;
    let topic = shop.activity.topic().clone();
    let producer = tokio::task::spawn_blocking(move || {
        let producer = transactional(&topic);
        send_open(&producer, &topic, &[created()]);
        producer
    });
    let producer = producer.await.unwrap();
    orders.place_one().await;
    let placed_at = "SELECT max(activity_at) FROM outbox";
    let placed_at: OffsetDateTime = sqlx::query_scalar(placed_at).fetch_one(&shop.orders.pool).await.unwrap();
    let announced = "SELECT count(*) FROM sources WHERE announced_to > $1::timestamptz + interval '2 seconds'";
    wait_until("it is announced", seconds(20), async || {
        let announced = sqlx::query_scalar::<_, i64>(announced).bind(placed_at);
        announced.fetch_one(&shop.activity.database.pool).await.unwrap() == 1
    })
    .await;
    assert!(complete_to(&counting).await < Some(placed_at), "the order is not counted");
    assert_eq!(shop.activity.counted().await, 1);

    tokio::task::spawn_blocking(move || producer.commit_transaction(seconds(30)).unwrap()).await.unwrap();
    is_complete_to(&counting, placed_at).await;
    shop.activity.has_counted(3, seconds(1)).await;
    is_complete_to(&counting, OffsetDateTime::now_utc()).await;
    // The position that Kafka has stands behind a message, never behind a marker.
    orders.place_one().await;
    shop.activity.has_counted(4, seconds(20)).await;
    assert_eq!((counting.stop().await, ordering.stop().await), (Some(0), Some(0)));
    shop.activity.judge_figures().await;
}

/// Holds: Of a topic that was created anew nothing is called complete by the offsets of the one before, and what that one
/// had and nobody has read is a gap.
#[tokio::test]
async fn a_topic_created_anew_is_not_complete_by_what_was_counted_of_the_one_before() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    world.produce(&many(5)).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    tell(&world, &[announcement(&world, "2026-11-20T13:00:00Z", 5), announcement(&world, "2026-11-20T14:00:00Z", 7)])
        .await;
    is_complete_to(&service, moment("2026-11-20T13:00:00Z")).await;
    is_deleted(&world).await;
    world.topic().create(1, &[]).await;
    // Each of them is less than what was counted of the topic before.
    tell(&world, &[announcement(&world, "2026-11-20T15:00:00Z", 2)]).await;
    wait_until("it is seen to be another one", seconds(40), async || {
        assert!(complete_to(&service).await < Some(moment("2026-11-20T14:00:00Z")), "two messages are still to come");
        service.has_logged("the topic was created anew")
    })
    .await;
    let gaps = "SELECT from_offset, to_offset FROM consumption_gaps WHERE state = 'open'";
    let gaps: Vec<(i64, i64)> = sqlx::query_as(gaps).fetch_all(&world.database.pool).await.unwrap();
    assert_eq!(gaps, [(5, 7)]);
    world.produce(&many(2)).await;
    is_complete_to(&service, moment("2026-11-20T15:00:00Z")).await;
    assert_eq!(world.counted().await, 7);
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

/// Holds: A message that is tried again has failed until it is counted; and what a source that is away has told last is
/// known again after a restart, whoever has told something since.
#[tokio::test]
async fn what_is_waited_for_is_remembered_and_what_has_failed_until_it_is_counted() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    world.produce(&many(5)).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let mut failed = announcement(&world, "2026-11-20T13:00:00Z", 5);
    failed["failed"] = 1.into();
    let mut other = announcement(&world, "2026-11-20T15:00:00Z", 5);
    other["source"] = "/parcels".into();
    tell(&world, &[failed, announcement(&world, "2026-11-20T14:00:00Z", 6), other]).await;
    let of_source = async |service: &Service, name: &str, field: &str| {
        let told = completeness(service).await;
        told["sources"].as_array().unwrap().iter().find(|one| one["source"] == name).map(|one| one[field].clone())
    };
    wait_until("it is known", seconds(20), async || {
        of_source(&service, "/parcels", "countedTo").await == Some("2026-11-20T15:00:00Z".into())
    })
    .await;
    assert_eq!(of_source(&service, SOURCE, "countedTo").await, Some("2026-11-20T13:00:00Z".into()));
    assert_eq!(of_source(&service, SOURCE, "failed").await, Some(1.into()), "it is not counted yet");
    assert_eq!(service.stop().await, Some(0));

    let service = world.setup().start().await;
    world.produce(&[created()]).await;
    is_complete_to(&service, moment("2026-11-20T14:00:00Z")).await;
    assert_eq!(of_source(&service, SOURCE, "failed").await, Some(0.into()));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_a_source_wrote_in_a_minute_is_known_after_a_kill_between_two_sources() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    let mut of_minute = announcement(&world, "2026-11-20T13:00:00Z", 5);
    of_minute["counts"] =
        json!({"from": "2026-11-20T12:58:00Z", "to": "2026-11-20T12:59:00Z", "quantities": {CREATED: 5}});
    let mut of_other = announcement(&world, "2026-11-20T13:00:00Z", 5);
    of_other["source"] = "/order-service/2".into();
    tell(&world, &[of_minute, of_other]).await;
    let mut service = world.setup().failpoint("completeness::half_noted", "return").spawn();
    assert_eq!(service.ended(seconds(30)).await.code(), None, "by a signal");
    // Whatever was noted last is read again, and nothing before it.
    let service = world.setup().start().await;
    let told = "SELECT count(*) FROM sources";
    wait_until("both have told", seconds(20), async || world.database.number(told).await == 2).await;
    let minutes = "SELECT (quantities ->> 'ORDER_CREATED')::bigint FROM source_minutes WHERE source = '/order-service'";
    assert_eq!(world.database.number(minutes).await, 5);
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// Holds: The check of minutes goes on however many there are, and however long one takes.
#[tokio::test]
async fn of_many_minutes_that_take_long_to_check_those_that_are_checked_are_noted() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    let slow = "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN new; END $$;
        CREATE TRIGGER slow BEFORE UPDATE ON source_minutes FOR EACH ROW EXECUTE FUNCTION be_slow()";
    world.database.execute(slow).await;
    let service = world.setup().start().await;
    let begin = moment("2026-11-20T00:00:00Z");
    tell(&world, &minutes(&world, begin, &[], "2026-11-20T05:00:00Z", 0)).await;
    // All of them take a minute, and a look has half a minute at most.
    let checked = "SELECT count(*) FROM source_minutes WHERE checked_at IS NOT NULL";
    wait_until("the first are noted", seconds(60), async || world.database.number(checked).await > 0).await;
    world.database.execute("DROP TRIGGER slow ON source_minutes").await;
    wait_until("all are", seconds(30), async || world.database.number(checked).await == 300).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn a_day_is_complete_when_it_is_what_its_source_wrote_and_what_differs_is_named() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    // References of now, so that the activities are of now as well: of yesterday.
    let now = OffsetDateTime::now_utc();
    let day = now.date().previous_day().unwrap();
    let begin = day.midnight().assume_utc();
    let at = begin + Duration::hours(12);
    let reference = |number| crate::world::reference(&day.to_string(), number + ((12 * 3_600_000) << 80));
    let message = |number: u128| {
        created()
            .with_field("messageRef", reference(number).to_string())
            .with_field("activityAt", text(at + Duration::seconds(7)))
    };
    let messages: Vec<_> = (0..7).map(message).collect();
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.has_counted(7, seconds(20)).await;
    let to = text(now);
    tell(&world, &minutes(&world, begin, &[(at, 7)], &to, 7)).await;
    let day = day.to_string();
    let is = async |state: &str| {
        wait_until(&format!("the day is {state}"), seconds(30), async || {
            of_day(&service, &day).await["state"] == state
        })
        .await;
    };
    is("complete").await;
    let told = of_day(&service, &day).await;
    assert_eq!(told["expected"], json!([{"activityTypeCode": CREATED, "quantity": 7}]));
    assert_eq!((&told["difference"], &told["late"]), (&json!([]), &json!([])));
    wait_until("that is noted", seconds(60), async || {
        world.database.number("SELECT count(*) FROM complete_days").await > 0
            && world.database.number("SELECT count(*) FROM source_minutes WHERE checked_at IS NULL").await == 0
    })
    .await;
    assert_eq!(verify(&world).await, (0, format!("{day} {CREATED} figure 7 keys 7 written 7: ok")));
    // What waits in quarantine may be of that day.
    world.produce(&[created().with_field("activityTypeCode", "ORDER_EATEN")]).await;
    is("behind").await;
    let told = of_day(&service, &day).await;
    assert_eq!((&told["quarantined"], &told["difference"]), (&1.into(), &json!([])));
    let resolved = |how: &str| format!("UPDATE quarantine SET (state, resolved_at, resolved_by, resolution) = ({how})");
    // Out of the way, or it would stand for the message that is missing below.
    world.database.execute(&resolved("'counted', now(), 'x', 'x'")).await;
    is("complete").await;
    // What was counted of a minute whose keys are purged cannot be found: it stays as it was.
    let purged = "CREATE TABLE purged AS SELECT * FROM processed_messages; DELETE FROM processed_messages;
        UPDATE key_horizon SET newest_purged = now();
        UPDATE source_minutes SET checked_at = NULL WHERE quantities <> '{}'";
    world.database.execute(purged).await;
    wait_until("they are looked at", seconds(60), async || {
        world.database.number("SELECT count(*) FROM source_minutes WHERE checked_at IS NULL").await == 0
    })
    .await;
    assert_eq!(of_day(&service, &day).await["difference"], json!([]));
    let back = "INSERT INTO processed_messages SELECT * FROM purged; DROP TABLE purged;
        UPDATE key_horizon SET newest_purged = NULL";
    world.database.execute(back).await;
    // A figure changed by hand, and a row deleted from the keys.
    world.database.execute("UPDATE daily_activity_shards SET quantity = quantity + 2").await;
    let key = format!("processed_messages WHERE message_ref = '{}'", reference(3));
    world.database.execute(&format!("CREATE TABLE taken AS SELECT * FROM {key}; DELETE FROM {key}")).await;
    world.database.execute("UPDATE source_minutes SET checked_at = NULL WHERE quantities <> '{}'").await;
    let names = async |difference: &Value| {
        wait_until("the difference is named", seconds(120), async || {
            of_day(&service, &day).await["difference"].as_array().unwrap().contains(difference)
        })
        .await;
    };
    names(&json!({"minute": null, "activityTypeCode": CREATED, "expected": 7, "counted": 9})).await;
    names(&json!({"minute": text(at), "activityTypeCode": CREATED, "expected": 7, "counted": 6})).await;
    let told = of_day(&service, &day).await;
    assert_eq!(told["state"], "behind");
    assert_eq!(told["late"], json!([{"activityTypeCode": CREATED, "quantity": 2}]));
    let figure = client(&service).get(&format!("/activities/{day}")).await.body[0].clone();
    assert_eq!((&figure["quantity"], &figure["lateQuantity"]), (&9.into(), &2.into()));
    assert_eq!(figure["missingQuantity"], 1, "one was written whose key is gone");
    assert!(moment(figure["lastCountedAt"].as_str().unwrap()) > now, "{figure}");
    wait_until("the metric tells", seconds(20), async || {
        service.metrics().await.sum("activity_differing_counts") > 0.0
    })
    .await;
    let wrong = format!("{day} {CREATED} figure 9 keys 6 written 7: the figure is more than its keys");
    assert_eq!(verify(&world).await, (1, wrong));
    // Put right again.
    world.database.execute("UPDATE daily_activity_shards SET quantity = quantity - 2").await;
    world.database.execute("INSERT INTO processed_messages SELECT * FROM taken; DROP TABLE taken").await;
    // Less than was written, and what was discarded long before explains nothing of it.
    tell(&world, &minutes(&world, begin, &[(at, 9)], &to, 7)).await;
    let told = "SELECT count(*) FROM source_minutes WHERE quantities ->> 'ORDER_CREATED' = '9'";
    wait_until("more is told", seconds(30), async || world.database.number(told).await == 1).await;
    let wrong = (1, format!("{day} {CREATED} figure 7 keys 7 written 9: less is counted than was written"));
    world.database.execute(&resolved("'waiting', NULL, NULL, NULL")).await;
    assert_eq!(verify(&world).await, wrong, "one waits, two are missing");
    let copies = r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, identity, received_at)
        SELECT gen_random_uuid(), topic, partition, "offset", value, reason, detail, uuid_send(gen_random_uuid()),
            now() - interval '3 days' FROM quarantine"#;
    world.database.execute(copies).await;
    assert_eq!(verify(&world).await, wrong);
    world.database.execute("UPDATE quarantine SET received_at = now()").await;
    assert_eq!(verify(&world).await.0, 0, "both may be of that day");
    world.database.execute("DELETE FROM quarantine WHERE message_ref IS NULL").await;
    world.judge().await;
}
