//! The partitions of days: made ahead, dropped when nothing in them is needed.

use activity_service::app::MIGRATIONS;
use sqlx::{Connection, Executor, PgConnection, Postgres, Transaction, migrate::Migrator};
use testing::{Database, Received, Service, Setup, announcement, wait_until};
use time::{
    Date, Duration,
    format_description::well_known::Rfc3339,
    macros::{date, datetime},
};

use crate::{
    operator::Operator,
    world::{CREATED, World, created, dated, many, seconds},
};

const OLD: Date = date!(2026 - 09 - 01);

fn old(count: u128) -> Vec<Received> {
    (0..count).map(|number| dated("2026-09-01", number)).collect()
}

/// Looks all the time whether something is due.
fn purging(world: &World) -> Setup {
    world.setup().set("retention.every", "50ms").set("retention.pause", "1ms")
}

/// Waits until two more purges have passed, so that one was whole.
async fn has_purged(service: &Service) {
    let last = async || service.health().await["components"]["retention"]["lastSuccess"].clone();
    for _ in 0..2 {
        let before = last().await;
        wait_until("a purge has passed", seconds(20), async || last().await != before).await;
    }
}

/// Makes the keys older than they are kept for, and what was seen of them before forgotten.
async fn has_aged(world: &World) {
    let older = "UPDATE processed_messages SET processed_at = processed_at - interval '31 days'";
    world.database.execute(older).await;
    world.database.execute("DELETE FROM key_day_ends").await;
}

async fn is_gone(world: &World, day: Date) {
    wait_until("its partition is gone", seconds(20), async || !world.key_days().await.contains(&day)).await;
}

/// A transaction of somebody who reads, and stays.
async fn reader(world: &World, reads: &str) -> Transaction<'static, Postgres> {
    let mut reader = world.database.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    reader.execute(sqlx::raw_sql(reads)).await.unwrap();
    reader
}

async fn number_of_keys(world: &World) -> i64 {
    world.database.number("SELECT count(*) FROM processed_messages").await
}

#[tokio::test]
async fn partitions_are_made_a_week_ahead_and_where_they_were_not_when_a_message_comes() {
    let world = World::new(1).await;
    for day in world.key_days().await {
        world.database.execute(&format!("DROP TABLE processed_messages_{}", day.to_string().replace('-', ""))).await;
    }
    let service = world.setup().set("metrics.database_every", "100ms").start().await;
    let ahead = async |days: f64| {
        let told = async || service.metrics().await.sum("activity_key_partitions_ahead") == days;
        wait_until(&format!("{days} days are told"), seconds(20), told).await;
    };
    ahead(7.0).await;
    let today: Date =
        sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date").fetch_one(&world.database.pool).await.unwrap();
    let days = (0..=7).map(|days| today + Duration::days(days));
    assert_eq!(world.key_days().await, days.collect());
    let third = (today + Duration::days(3)).to_string();
    world.database.execute(&format!("DROP TABLE processed_messages_{}", third.replace('-', ""))).await;
    ahead(2.0).await;
    world.produce(&[dated(&third, 1)]).await;
    world.at_rest().await;
    ahead(7.0).await;
    assert_eq!(world.counted().await, 1);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_day_goes_when_all_of_it_is_old_and_neither_a_message_nor_a_copy_can_be_read() {
    let world = World::new(2).await;
    let messages = old(5);
    // The last one has a copy in the other partition.
    let first: Vec<_> = messages.iter().map(|one| one.clone().in_partition(0)).collect();
    world.produce(&first).await;
    world.run_to_rest().await;
    world.produce(&[messages[4].clone().in_partition(1)]).await;
    world.run_to_rest().await;
    let service = purging(&world).start().await;
    world.topic().delete_before(0, 4).await;
    world.topic().delete_before(1, 1).await;
    let stays = async |why: &str| {
        has_purged(&service).await;
        assert_eq!(number_of_keys(&world).await, 5, "{why}");
    };
    has_aged(&world).await;
    stays("one can be read").await;
    let copy = "INSERT INTO message_copies SELECT message_ref, topic, 1, 7 FROM processed_messages LIMIT 1";
    world.database.execute(copy).await;
    world.topic().delete_before(0, 5).await;
    stays("a copy can be read").await;
    world.database.execute(r#"UPDATE processed_messages SET processed_at = now() WHERE "offset" = 2"#).await;
    world.database.execute(r#"UPDATE message_copies SET "offset" = 0"#).await;
    world.database.execute("DELETE FROM key_day_ends").await;
    stays("one is too young").await;
    has_aged(&world).await;
    is_gone(&world, OLD).await;
    assert_eq!(number_of_keys(&world).await, 0);
    assert_eq!(world.database.number("SELECT count(*) FROM message_copies").await, 0);
    assert_eq!(world.database.number("SELECT count(*) FROM key_day_ends").await, 0);
    // The line comes when the whole purge has ended.
    has_purged(&service).await;
    let purged: u64 = service.log().iter().filter_map(|line| line["purged.keys"].as_u64()).sum();
    assert_eq!(purged, 5);
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test]
async fn what_keeps_a_day_is_remembered_and_the_day_not_read_again_until_that_has_passed() {
    let world = World::new(1).await;
    world.produce(&old(10)).await;
    world.run_to_rest().await;
    has_aged(&world).await;
    world.topic().delete_before(0, 5).await;
    let service = purging(&world).start().await;
    wait_until("it is remembered", seconds(20), async || {
        world.database.number("SELECT coalesce(max(last_offset), 0) FROM key_day_ends").await == 9
    })
    .await;
    let scans = "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'processed_messages_20260901'";
    // Statistics come late: twice the same, a while apart, is none meanwhile.
    let mut before = -1;
    wait_until("it is not read any more", seconds(30), async || {
        tokio::time::sleep(seconds(2)).await;
        let now = world.database.number(scans).await;
        std::mem::replace(&mut before, now) == now
    })
    .await;
    has_purged(&service).await;
    world.topic().delete_before(0, 10).await;
    is_gone(&world, OLD).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test]
async fn a_wrong_clocks_day_in_the_future_goes_like_one_in_the_past() {
    let world = World::new(1).await;
    world.produce(&[dated("2051-07-07", 1), created()]).await;
    world.run_to_rest().await;
    let service = purging(&world).start().await;
    world.topic().delete_before(0, 2).await;
    has_purged(&service).await;
    assert_eq!(number_of_keys(&world).await, 2);
    has_aged(&world).await;
    is_gone(&world, date!(2051 - 07 - 07)).await;
    assert_eq!(number_of_keys(&world).await, 1, "today's partition is needed");
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_reader_who_stays_counting_goes_on_and_the_day_goes_when_he_has_gone() {
    let world = World::new(1).await;
    world.produce(&old(50)).await;
    world.run_to_rest().await;
    has_aged(&world).await;
    world.topic().delete_before(0, 50).await;
    // One reads that day, another one the rest: then it is emptied, and stays as it is.
    for (reads, left) in
        [("SELECT count(*) FROM processed_messages", 50), ("SELECT count(*) FROM processed_messages WHERE undated", 0)]
    {
        let reader = reader(&world, reads).await;
        let service = purging(&world).set("consumer.batch_max_messages", 50).start().await;
        let begun = world.counted().await;
        let counted = async {
            for step in 1..=5 {
                world.has_counted(begun + step * 200, seconds(10)).await;
                has_purged(&service).await;
            }
        };
        // Not so old that its key may have been purged.
        let young = || announcement(CREATED, "2026-11-20T12:00:01Z");
        let (_, ()) = world.topic().produce_during(young, counted).await;
        let of_that_day = "SELECT count(*) FROM processed_messages_20260901";
        assert_eq!(world.database.number(of_that_day).await, left, "beside {reads}");
        // A message of that very day, and one of a day that has no partition yet.
        world.produce(&[dated("2026-09-01", 77), dated("2026-09-02", u128::from(left == 0))]).await;
        world.at_rest().await;
        assert!(world.key_days().await.contains(&OLD));
        has_aged(&world).await;
        world.topic().delete_before(0, world.topic().ends().await[0]).await;
        assert_eq!(service.stop().await, Some(0));
        reader.rollback().await.unwrap();
    }
    let service = purging(&world).start().await;
    is_gone(&world, OLD).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test]
async fn whoever_vacuums_one_day_holds_up_neither_a_message_of_a_new_day_nor_the_end_of_an_old_one() {
    let world = World::new(1).await;
    let other = world.key_days().await.first().unwrap().to_string().replace('-', "");
    let mut vacuum = world.database.pool.begin().await.unwrap();
    let held = format!("LOCK TABLE processed_messages_{other} IN SHARE UPDATE EXCLUSIVE MODE");
    vacuum.execute(sqlx::raw_sql(&held)).await.unwrap();
    world.produce(&old(5)).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 5);
    has_aged(&world).await;
    world.topic().delete_before(0, 5).await;
    let service = purging(&world).start().await;
    is_gone(&world, OLD).await;
    assert_eq!(service.stop().await, Some(0));
    vacuum.rollback().await.unwrap();
    world.judge_purged().await;
}

/// Holds: No counting waits longer than a moment for a day of keys to be made or dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_days_made_and_dropped_all_the_time_by_two_instances_every_message_is_counted_once() {
    let world = World::new(2).await;
    let number = std::cell::Cell::new(0_u128);
    let next = || {
        number.set(number.get() + 1);
        let day = date!(2026 - 01 - 01) + Duration::days(i64::try_from(number.get() / 10 % 200).unwrap());
        // Each younger than those before it: what comes in order is not too old, whatever has gone.
        let at = datetime!(2026-11-20 00:00 UTC) + Duration::seconds(i64::try_from(number.get()).unwrap());
        dated(&day.to_string(), number.get()).with_field("activityAt", at.format(&Rfc3339).unwrap())
    };
    let setup = purging(&world).set("retention.processed_keys", "0s").set("consumer.batch_max_messages", 20);
    let (one, two) = tokio::join!(setup.start(), setup.start());
    let purged = async || {
        let (one, two) = tokio::join!(one.metrics(), two.metrics());
        [one, two].iter().map(|told| told.sum_of("activity_purged_rows_total", "kind", "keys")).sum::<f64>()
    };
    // What the broker has not any more may go at once.
    let work = async {
        let mut round = 0;
        while round < 20 || purged().await == 0.0 {
            round += 1;
            assert!(round < 1_000, "none was dropped");
            world.has_counted(round * 50, seconds(30)).await;
            for (partition, next) in (0..).zip(world.topic().committed(&world.group, 2).await) {
                world.topic().delete_before(partition, next.max(0)).await;
            }
        }
    };
    let (written, ()) = world.topic().produce_during(next, work).await;
    world.at_rest().await;
    let counted = world.counted().await + world.quarantined().await;
    assert_eq!(counted, i64::try_from(written).unwrap());
    let kept = "SELECT count(*) FROM quarantine WHERE reason <> 'too old'";
    assert_eq!(world.database.number(kept).await, 0);
    assert_eq!((one.stop().await, two.stop().await), (Some(0), Some(0)));
    world.judge_purged().await;
}

/// The migrations up to `version`.
pub fn up_to(version: i64) -> Migrator {
    let migrations: Vec<_> = MIGRATIONS.iter().filter(|one| one.version <= version).cloned().collect();
    Migrator { migrations: migrations.into(), ..Migrator::DEFAULT }
}

/// Before keys lay in partitions.
const BEFORE: i64 = 20_261_125_000_010;

/// Everything of keys and figures, sorted.
async fn content(database: &Database) -> Vec<String> {
    let rows = r#"
        SELECT concat_ws(' ', message_ref, activity_type_code, activity_date, extract(epoch FROM activity_at), topic,
            partition, "offset", extract(epoch FROM processed_at)) AS line FROM processed_messages
        UNION ALL SELECT concat_ws(' ', activity_date, activity_type_code, quantity) FROM daily_activities
        ORDER BY line"#;
    sqlx::query_scalar(rows).fetch_all(&database.pool).await.unwrap()
}

#[tokio::test]
async fn old_keys_and_figures_are_carried_over_and_back_and_are_still_known() {
    let mut world = World::new(1).await;
    let database = Database::new(&up_to(BEFORE)).await;
    let mut messages = many(20);
    messages.extend(old(5));
    let refs = messages.iter().map(|one| format!("'{}'", one.message_ref().unwrap())).collect::<Vec<_>>().join(", ");
    // Those of the topic, and 5,000 of 40 days and of every kind.
    let keys = format!(
        r#"
        INSERT INTO processed_messages (message_ref, activity_type_code, activity_date, activity_at, topic, partition, "offset")
        SELECT reference, '{CREATED}', '2026-11-20', '2026-11-20T12:00:00.123456Z', '{topic}', 0, number - 1
        FROM UNNEST(ARRAY[{refs}]::uuid[]) WITH ORDINALITY AS one (reference, number);
        INSERT INTO processed_messages (message_ref, activity_type_code, activity_date, activity_at, topic, partition, "offset", processed_at)
        SELECT CASE WHEN number % 5 = 0 THEN gen_random_uuid()
            ELSE overlay(overlay(md5(number::text) PLACING lpad(to_hex(1793000000000 + number::bigint * 691200), 12, '0') FROM 1)
                PLACING '7' FROM 13)::uuid END,
            'ORDER_COMPLETED', date '2026-10-01' + number % 40, timestamptz '2026-10-01' + number * interval '11 min',
            'elsewhere', number % 6, number, timestamptz '2026-11-01' + number * interval '1 s'
        FROM generate_series(1, 5000) AS number;
        INSERT INTO daily_activities SELECT activity_date, activity_type_code, count(*) FROM processed_messages GROUP BY 1, 2
        "#,
        topic = world.topic().name
    );
    database.execute(&keys).await;
    let before = content(&database).await;

    let mut owner = PgConnection::connect(&database.owner_url()).await.unwrap();
    for _ in 0..2 {
        MIGRATIONS.run(&mut owner).await.unwrap();
        assert_eq!(content(&database).await, before);
        let undated = "SELECT count(*) FROM processed_messages_undated";
        assert_eq!(database.number(undated).await, 1000);
        MIGRATIONS.undo(&mut owner, BEFORE).await.unwrap();
        assert_eq!(content(&database).await, before);
    }
    MIGRATIONS.run(&mut owner).await.unwrap();
    owner.close().await.unwrap();
    // As after any change of the schema.
    database.grant().await;

    world.database = database;
    world.produce(&messages).await;
    world.produce(&[created()]).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 5026);
    // Of these there is no topic to compare with.
    assert_eq!(world.database.execute("DELETE FROM processed_messages WHERE topic = 'elsewhere'").await, 5000);
    world.judge_purged().await;
}

#[tokio::test]
async fn an_old_program_that_goes_on_after_the_migration_can_count_nothing() {
    let world = World::new(1).await;
    let statements = [
        r#"INSERT INTO processed_messages
            (message_ref, activity_type_code, activity_date, activity_at, topic, partition, "offset")
        SELECT gen_random_uuid(), 'ORDER_CREATED', '2026-11-20', now(), 't', 0, 0
        ON CONFLICT (message_ref) DO NOTHING"#,
        "INSERT INTO daily_activities AS figure (activity_date, activity_type_code, quantity)
        SELECT '2026-11-20', 'ORDER_CREATED', 1
        ON CONFLICT (activity_date, activity_type_code) DO UPDATE SET quantity = figure.quantity + 1",
    ];
    let mut service = PgConnection::connect(&world.database.url()).await.unwrap();
    for statement in statements {
        let refused = service.execute(statement).await.expect_err(statement).into_database_error().unwrap();
        // No class of errors for which a message would be to blame.
        let code = refused.code().unwrap_or_default().into_owned();
        assert!(!code.starts_with("22") && !code.starts_with("23"), "{code} {refused}");
    }
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn after_a_day_went_its_messages_are_too_old_and_others_of_that_day_are_counted() {
    let world = World::new(1).await;
    let messages = old(3);
    world.produce(&messages).await;
    world.run_to_rest().await;
    has_aged(&world).await;
    world.topic().delete_before(0, 3).await;
    let service = purging(&world).start().await;
    is_gone(&world, OLD).await;
    world.produce(&messages).await;
    world.produce(&[dated("2026-09-01", 9).with_field("activityAt", "2026-11-20T12:00:01Z")]).await;
    world.at_rest().await;
    assert_eq!(Operator::of(&service).quarantine("reason=too_old").await.len(), 3);
    assert_eq!(world.counted().await, 4);
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}
