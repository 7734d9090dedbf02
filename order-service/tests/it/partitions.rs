//! The days of the outbox: made ahead, and dropped once everything in them is old and settled. No order
//! ever waits for it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use testing::{Client, Service, Setup, order_body, wait_until};

use crate::world::{World, seconds};

/// The partitions of a table, by how many days ago theirs was.
async fn days(world: &World, table: &str) -> BTreeSet<i64> {
    let days = format!(
        "SELECT extract(day FROM date_trunc('day', now(), 'UTC') - partition_day(relname))::bigint
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = '{table}'::regclass"
    );
    sqlx::query_scalar(&days).fetch_all(&world.database.pool).await.unwrap().into_iter().collect()
}

async fn old_days(world: &World, table: &str) -> Vec<i64> {
    days(world, table).await.into_iter().filter(|day| *day > 1).collect()
}

/// The name of a partition of so many days ago.
async fn name(world: &World, table: &str, days_ago: i64) -> String {
    let name = format!(
        "SELECT '{table}_' || to_char((now() - {days_ago} * interval '24 hours') AT TIME ZONE 'UTC', 'YYYYMMDD')"
    );
    sqlx::query_scalar(&name).fetch_one(&world.database.pool).await.unwrap()
}

/// Orders of so many days ago and their messages, in a log that nobody sends any more.
async fn left_behind(world: &World, count: u64, log: i64, days_ago: i64) {
    let ago = format!("{days_ago} * interval '24 hours'");
    world.database.execute(&format!("SELECT make_partition(date_trunc('day', now(), 'UTC') - {ago})")).await;
    world.left_behind(count, log).await;
    let moved = format!(
        "UPDATE outbox SET activity_at = activity_at - {ago},
            message_ref = (left(first_reference(activity_at - {ago})::text, 14) || right(message_ref::text, 22))::uuid
        WHERE instance = {log}"
    );
    world.database.execute(&moved).await;
}

/// Makes messages of a log too large for the topic.
async fn spoil(world: &World, log: i64, count: i64) {
    let statement = format!(
        "UPDATE outbox SET tracestate = (SELECT string_agg(md5(n::text || message_ref), '') FROM generate_series(1, 600) n)
        WHERE instance = {log} AND seq < {count}"
    );
    world.database.execute(&statement).await;
}

fn busy(world: &World) -> Setup {
    let setup = world.setup().set("partitions.every", "100ms").set("metrics.database_every", "100ms");
    setup.set("publisher.backoff_initial", "50ms").set("publisher.backoff_max", "100ms")
}

/// Of a day ahead. The service may be at the rights on it at that moment, and then it is to be said again.
async fn lose_day(world: &World, table: &str, days_ahead: i64) {
    let statement = format!("DROP TABLE {}", name(world, table, -days_ahead).await);
    let dropped = async || sqlx::raw_sql(&statement).execute(&world.database.pool).await.is_ok();
    wait_until("the day is gone", seconds(10), dropped).await;
}

async fn ahead(service: &Service) -> f64 {
    service.metrics().await.sum("outbox_partitions_ahead")
}

async fn retry(client: &Client, count: u64) {
    let all = client.ask(reqwest::Method::POST, "/admin/messages/retry", &[], Vec::new()).await.unwrap();
    assert_eq!((all.status, all.body), (202, json!({"retried": count})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_day_goes_when_everything_in_it_is_settled_and_what_has_failed_survives_it() {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", "12000")]).await;
    left_behind(&world, 10, 902, 12).await;
    spoil(&world, 902, 2).await;
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    wait_until("two have failed", seconds(20), async || world.count("failed").await == 2).await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));

    left_behind(&world, 30, 900, 14).await;
    left_behind(&world, 11, 901, 13).await;
    spoil(&world, 901, 1).await;
    left_behind(&world, 10, 903, 11).await;
    left_behind(&world, 5, 904, 6).await;
    world.remember_left().await;
    // One that was stopped for a moment: it lives, and what is in its log is its own.
    let mut paused = PgConnection::connect(&world.database.url()).await.unwrap();
    paused.execute("SELECT pg_advisory_lock(903)").await.unwrap();
    assert_eq!(old_days(&world, "outbox").await, [6, 11, 12, 13, 14]);

    let setup = busy(&world).set("publisher.max_failures", 1_000_000);
    let (service, other) = (setup.start().await, setup.start().await);
    let client = world.client(&service);
    let are = async |messages: &[i64], acknowledgements: &[i64]| {
        old_days(&world, "outbox").await == messages && old_days(&world, "published").await == acknowledgements
    };
    client
        .load_during(4, async {
            wait_until("what is settled is dropped", seconds(20), async || {
                are(&[6, 11, 13], &[6, 11, 12, 13, 14]).await
            })
            .await;
            tokio::time::sleep(seconds(2)).await;
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "orders are placed meanwhile");
    assert!(
        are(&[6, 11, 13], &[6, 11, 12, 13, 14]).await,
        "one that waits for its next attempt and one that nobody may send keep their days, and the first the \
         acknowledgements of the day before"
    );
    let orders = "SELECT count(*) FROM orders WHERE customer_ref LIKE 'left-%'";
    assert_eq!(world.database.number(orders).await, 66, "an order does not go with its message");

    // Their day has gone, and they are kept with all it takes to send them.
    assert_eq!(world.count("failed").await, 2);
    let listed = client.list("/admin/messages").await;
    assert!(listed.len() == 2 && listed.iter().all(|one| one["failures"] == 1), "{listed:?}");
    world.topic.set("max.message.bytes", "100000").await;
    wait_until("the waiting one is sent, its day goes, and what was acknowledged before", seconds(20), async || {
        are(&[6, 11], &[6, 11, 12]).await
    })
    .await;
    paused.close().await.unwrap();
    wait_until("what the paused one has left is sent and goes", seconds(20), async || are(&[6], &[6]).await).await;
    retry(&client, 2).await;
    wait_until("they are sent", seconds(10), async || world.count("failed").await == 0).await;
    world.at_rest(seconds(10)).await;
    let dropped = async || {
        let name = "outbox_dropped_partitions_total";
        service.metrics().await.sum(name) + other.metrics().await.sum(name)
    };
    wait_until("each is told once", seconds(5), async || dropped().await == 8.0).await;

    let on_topic = world.topic.dump().await;
    let distinct: BTreeSet<_> = on_topic.iter().map(|message| message.header("ce_id")).collect();
    let placed = usize::try_from(world.database.number("SELECT count(*) FROM orders").await).unwrap();
    assert_eq!((on_topic.len(), distinct.len()), (placed, placed), "each is sent once, whatever became of its day");
    assert_eq!((service.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge_with(testing::Checker::purge_allowed).await;
}

/// A reader's transaction that stays open for hours: `reads` is what it has read.
async fn beside_a_reader(reads: &str, is_emptied: bool) {
    let world = World::new().await;
    left_behind(&world, 20, 900, 10).await;
    let newest = name(&world, "outbox", -7).await;
    world.database.execute(&format!("DROP TABLE {newest}")).await;
    let mut reader = world.database.pool.begin().await.unwrap();
    let begin = format!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; {reads}");
    sqlx::raw_sql(&begin).execute(&mut *reader).await.unwrap();

    let service = busy(&world).start().await;
    let client = world.client(&service);
    wait_until("the missing day is made beside it", seconds(10), async || days(&world, "outbox").await.contains(&-7))
        .await;
    world.at_rest(seconds(10)).await;
    world.history.take_slowest();
    client.load_during(8, tokio::time::sleep(seconds(4))).await;
    let slowest = world.history.take_slowest();
    assert!(slowest < seconds(1), "an order waited for {slowest:?}");
    assert_eq!(world.history.others(), [].into());
    assert_eq!(old_days(&world, "outbox").await, [10], "the reader still needs it");
    let left = name(&world, "outbox", 10).await;
    let left = world.database.number(&format!("SELECT count(*) FROM {left}")).await;
    assert_eq!(left == 0, is_emptied, "{left} rows are left");
    assert_eq!(old_days(&world, "published").await, [10]);

    reader.rollback().await.unwrap();
    wait_until("it is dropped", seconds(10), async || old_days(&world, "outbox").await.is_empty()).await;
    wait_until("so are its acknowledgements", seconds(10), async || old_days(&world, "published").await.is_empty())
        .await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::purge_allowed).await;
}

/// Holds: No placement waits longer than a moment for a day to be made or dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_transaction_that_has_read_everything_days_are_made_and_none_is_dropped_and_no_order_waits() {
    beside_a_reader("SELECT count(*) FROM outbox", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_transaction_that_has_read_today_an_old_day_is_emptied_and_no_order_waits() {
    beside_a_reader(
        "DO $$ BEGIN EXECUTE format('SELECT count(*) FROM outbox WHERE message_ref >= %L', first_reference(now())); END $$",
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_cannot_be_made_show_in_the_metric_long_before_orders_are_refused() {
    let world = World::new().await;
    let service = busy(&world).start().await;
    wait_until("a week ahead is told", seconds(10), async || ahead(&service).await > 7.0).await;
    assert!(ahead(&service).await <= 8.0);
    let making = "SELECT pg_get_functiondef('make_partitions'::regproc)";
    let making: String = sqlx::query_scalar(making).fetch_one(&world.database.pool).await.unwrap();
    let breaks = "CREATE OR REPLACE FUNCTION make_partitions(days_ahead integer) RETURNS void LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$";
    world.database.execute(breaks).await;
    for day in 2..=7 {
        lose_day(&world, "outbox", day).await;
    }
    wait_until("two days are left", seconds(10), async || ahead(&service).await <= 2.0).await;
    assert!(ahead(&service).await > 1.0);
    wait_until("it says so", seconds(10), async || service.has_logged("cannot make or drop partitions")).await;
    let client = world.client(&service);
    client.load(20, 4).await;
    assert_eq!(world.history.others(), [].into());

    // One of acknowledgements counts as well: what is sent could not be marked.
    lose_day(&world, "published", 1).await;
    wait_until("one day is left", seconds(10), async || ahead(&service).await <= 1.0).await;
    world.database.execute(&making).await;
    wait_until("it has made up for it", seconds(15), async || ahead(&service).await > 7.0).await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_day_for_now_references_are_of_the_last_day_there_is_and_orders_are_accepted() {
    let world = World::new().await;
    let service = busy(&world).start().await;
    wait_until("a week ahead is told", seconds(10), async || ahead(&service).await > 7.0).await;
    // Whoever makes them is at it, and does not come to an end.
    let mut making = world.database.pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock('outbox'::regclass::oid::bigint)";
    sqlx::raw_sql(lock).execute(&mut *making).await.unwrap();
    for day in 0..=7 {
        lose_day(&world, "outbox", day).await;
    }
    wait_until("that none is left is told", seconds(10), async || ahead(&service).await <= 0.0).await;
    let client = world.client(&service);
    client.load(200, 8).await;
    assert_eq!(world.history.others(), [].into());
    let order = client.place_one().await;
    assert_eq!(client.change(&order, "complete").await.unwrap().status, 200);
    world.at_rest(seconds(10)).await;
    let of_yesterday = format!("SELECT count(*) FROM {}", name(&world, "outbox", 1).await);
    assert_eq!(world.database.number(&of_yesterday).await, 202);
    making.rollback().await.unwrap();
    wait_until("the days are made", seconds(10), async || ahead(&service).await > 7.0).await;
    client.load(20, 4).await;
    wait_until("today's take the new ones", seconds(10), async || {
        world.database.number("SELECT count(*) FROM outbox").await == 222
    })
    .await;
    assert_eq!(world.database.number(&of_yesterday).await, 202);
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// As after a stop of more than a week, or with an old backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_day_at_the_start_the_first_order_is_accepted() {
    let world = World::new().await;
    for table in ["outbox", "published"] {
        for days_ago in days(&world, table).await {
            lose_day(&world, table, -days_ago).await;
        }
    }
    // Who else makes days comes too late for it.
    let service = busy(&world).failpoint("partitions::before_making", "return(error)").start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    assert_eq!(client.change(&order, "complete").await.unwrap().status, 200);
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_there_is_no_day_at_all_callers_are_told_to_come_again() {
    let world = World::new().await;
    let service = busy(&world).start().await;
    let mut making = world.database.pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock('outbox'::regclass::oid::bigint)";
    sqlx::raw_sql(lock).execute(&mut *making).await.unwrap();
    for days_ago in days(&world, "outbox").await {
        lose_day(&world, "outbox", -days_ago).await;
    }
    let order = reqwest::Client::new().post(format!("{}/orders", service.api())).json(&order_body("C-1"));
    assert_eq!(order.send().await.unwrap().status(), 503);
    making.rollback().await.unwrap();
    wait_until("the days are made", seconds(10), async || ahead(&service).await > 7.0).await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn for_how_many_days_there_are_partitions_is_told_of_now_whenever_they_were_made_last() {
    let world = World::new().await;
    let setup = world.setup().set("partitions.every", "1h").set("metrics.database_every", "100ms");
    let service = setup.start().await;
    wait_until("they are made", seconds(10), async || {
        !service.health().await["components"]["partitions"]["lastSuccess"].is_null()
    })
    .await;
    assert!(ahead(&service).await > 7.0);
    lose_day(&world, "outbox", 3).await;
    wait_until("the gap is told", seconds(10), async || ahead(&service).await <= 3.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn an_instance_killed_while_it_makes_or_drops_days_leaves_the_rest_to_the_other_one() {
    for point in ["partitions::before_making", "partitions::before_dropping", "partitions::dropped"] {
        let world = World::new().await;
        for (log, days_ago) in [(900, 12), (901, 11), (902, 10)] {
            left_behind(&world, 5, log, days_ago).await;
        }
        let service = world.setup().start().await;
        world.at_rest(seconds(10)).await;
        wait_until("their logs are done", seconds(10), async || {
            world.database.number("SELECT count(*) FROM instances WHERE instance_id < 1000 AND done_at IS NULL").await
                == 0
        })
        .await;
        assert_eq!(service.stop().await, Some(0));
        let newest = name(&world, "outbox", -7).await;
        world.database.execute(&format!("DROP TABLE {newest}")).await;
        let mut killed = busy(&world).failpoint(point, "return").spawn();
        killed.ended(seconds(10)).await;
        let other = busy(&world).start().await;
        wait_until("the days are what they should be", seconds(10), async || {
            days(&world, "outbox").await == (-7..=1).collect() && days(&world, "published").await == (-7..=1).collect()
        })
        .await;
        assert_eq!(other.stop().await, Some(0));
        world.judge_with(testing::Checker::purge_allowed).await;
    }
}

/// Whoever reads the outbox waits while a day of it is locked: what is asked meanwhile does not grow with the day.
#[tokio::test]
async fn whether_an_old_day_is_settled_is_asked_without_reading_it() {
    let world = World::new().await;
    left_behind(&world, 3, 900, 10).await;
    let many = "
        INSERT INTO instances (instance_id, ended_at, closed_at, done_at) VALUES (1, now(), now(), now());
        INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format)
        SELECT (left(m.message_ref::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 1, n, n, 1, 'ORDER_CREATED', activity_at, 1
        FROM generate_series(1, 50000) AS n, (SELECT * FROM outbox WHERE instance = 900 AND seq = 0) AS m";
    world.database.execute(many).await;
    world.database.execute("VACUUM (ANALYZE) outbox").await;
    let day = name(&world, "outbox", 10).await;
    let is_settled = async || {
        let mut asking = PgConnection::connect(&world.database.owner_url()).await.unwrap();
        let asked = format!("SELECT is_settled_outbox_partition('{day}')");
        let is_settled: bool = sqlx::query_scalar(&asked).fetch_one(&mut asking).await.unwrap();
        // What it has read is told by the time it has gone.
        asking.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        asking.close().await.unwrap();
        is_settled
    };
    let read =
        format!("SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = '{day}'");
    let done = "UPDATE instances SET ended_at = now(), closed_at = now(), done_at = now() WHERE instance_id = 900";
    for (settle, expected) in [("SELECT", false), (done, true)] {
        world.database.execute(settle).await;
        let before = world.database.number(&read).await;
        assert_eq!(is_settled().await, expected, "{settle}");
        let more = world.database.number(&read).await - before;
        assert!(more <= 10, "{more} messages were read: {settle}");
    }
    // One that has written since, and nothing of that day.
    world.database.execute("INSERT INTO instances (instance_id) VALUES (901)").await;
    let before = world.database.number(&read).await;
    assert!(is_settled().await);
    assert_eq!(world.database.number(&read).await, before);
    world.database.execute("TRUNCATE outbox, orders").await;
    world.judge_nothing_placed().await;
}

/// Holds: No day is dropped with a message that is not settled or may still be repeated, whoever asks.
#[tokio::test]
async fn the_role_of_the_service_can_drop_no_day_that_is_young_or_unsettled_and_no_other_table() {
    let world = World::new().await;
    left_behind(&world, 3, 900, 10).await;
    world.database.execute("SELECT make_partition(date_trunc('day', now(), 'UTC') - 11 * interval '24 hours')").await;
    let mut service = PgConnection::connect(&world.database.url()).await.unwrap();
    let (today, yesterday) = (name(&world, "outbox", 0).await, name(&world, "outbox", 1).await);
    let (unsettled, settled) = (name(&world, "outbox", 10).await, name(&world, "outbox", 11).await);
    let drop_day = |name: &str, kept_for: &str| format!("SELECT drop_outbox_partition($name${name}$name$, {kept_for})");
    let drop_marks = |name: &str| format!("SELECT drop_published_partition($name${name}$name$)");
    let marks = [0, 1, 9, 10].map(|days_ago| name(&world, "published", days_ago));
    let mut kept = vec![drop_day(&settled, "interval '30 days'")];
    for name in [&today, &yesterday, &unsettled] {
        kept.extend(["interval '0'", "interval '-100 years'", "NULL"].map(|kept_for| drop_day(name, kept_for)));
    }
    for name in marks {
        let name = name.await;
        let there = world.database.number(&format!("SELECT count(*) FROM pg_class WHERE relname = '{name}'")).await;
        kept.extend((there == 1).then(|| drop_marks(&name)));
    }
    for statement in &kept {
        let outcome: String = sqlx::query_scalar(statement).fetch_one(&mut service).await.unwrap();
        assert_eq!(outcome, "kept", "{statement}");
    }

    let of_marks = name(&world, "published", 11).await;
    let all =
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let before: String = sqlx::query_scalar(all).fetch_one(&world.database.pool).await.unwrap();
    let mut refused = Vec::new();
    for name in [
        "orders",
        "rejected_messages",
        "instances",
        "outbox",
        "outbox_pkey",
        "published",
        "pg_catalog.pg_class",
        "",
        "none",
        "orders; DROP TABLE orders",
        &format!("public.{settled}"),
        &format!("{settled} "),
        &format!("\"{settled}\""),
        &settled.to_uppercase(),
        &format!("{settled}; DROP TABLE orders"),
        &of_marks,
    ] {
        refused.push(drop_day(name, "interval '0'"));
    }
    for name in ["orders", "outbox", "published", "", "published; DROP TABLE orders", &settled] {
        refused.push(drop_marks(name));
    }
    refused.extend(
        [
            "SELECT drop_outbox_partition(NULL, interval '0')",
            "SELECT drop_published_partition(NULL)",
            "SELECT make_partitions(61)",
            "SELECT make_partition(now())",
            "SELECT make_partition(now() - interval '1 year')",
            &format!("DROP TABLE {settled}"),
            &format!("TRUNCATE {settled}"),
            &format!("ALTER TABLE outbox DETACH PARTITION {settled}"),
            "DROP TABLE outbox CASCADE",
            "TRUNCATE outbox",
            "CREATE TABLE outbox_more PARTITION OF outbox DEFAULT",
        ]
        .map(str::to_owned),
    );
    for statement in &refused {
        assert!(service.execute(statement.as_str()).await.is_err(), "{statement}");
    }
    let after: String = sqlx::query_scalar(all).fetch_one(&world.database.pool).await.unwrap();
    assert_eq!(after, before);
    assert_eq!(world.database.number("SELECT count(*) FROM outbox").await, 3);

    // What the functions are there for.
    let outcome: String =
        sqlx::query_scalar(&drop_day(&settled, "interval '7 days'")).fetch_one(&mut service).await.unwrap();
    assert_eq!(outcome, "dropped");
    world.database.execute("TRUNCATE outbox, orders").await;
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_day_that_cannot_be_dropped_keeps_no_other_one() {
    let world = World::new().await;
    for days_ago in [12, 11, 10] {
        let make = "SELECT make_partition(date_trunc('day', now(), 'UTC')";
        world.database.execute(&format!("{make} - {days_ago} * interval '24 hours')")).await;
    }
    let oldest = name(&world, "outbox", 12).await;
    world.database.execute(&format!("CREATE VIEW of_an_analyst AS SELECT * FROM {oldest}")).await;
    let service = busy(&world).start().await;
    wait_until("the others are dropped", seconds(10), async || old_days(&world, "outbox").await == [12]).await;
    world.database.execute("DROP VIEW of_an_analyst").await;
    wait_until("so is this one at last", seconds(15), async || old_days(&world, "outbox").await.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}
