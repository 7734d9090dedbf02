//! What is lost, removed, counted twice or changed by hand is named within two minutes, whatever it was.

use std::time::Duration as Limit;

use serde_json::{Value, json};
use testing::{Received, Service, wait_until};
use time::{Duration, OffsetDateTime};

use crate::{
    completeness::{minutes, of_day, progress_topic, tell, text},
    world::{CREATED, World, created, reference, seconds},
};

/// From when a minute is told to when a loss is named.
const NAMED_WITHIN: Limit = Limit::from_secs(120);
/// Messages of each minute in which something is written.
const EACH: i64 = 4;

/// A day that goes on, of which minutes are told up to a moment ago. Of a zone where it is noon: it neither begins nor
/// ends while the test runs.
struct Day {
    /// In hours.
    east_of_utc: i64,
    begin: OffsetDateTime,
    told_to: OffsetDateTime,
}

impl Day {
    fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        let east_of_utc = 12 - i64::from(now.hour());
        let offset = Duration::hours(east_of_utc);
        let begin = (now + offset).date().midnight().assume_utc() - offset;
        let minutes = (now - begin).whole_minutes() - 2;
        Self { east_of_utc, begin, told_to: begin + Duration::minutes(minutes) }
    }

    /// These names count to the west.
    fn zone(&self) -> String {
        format!("Etc/GMT{:+}", -self.east_of_utc)
    }

    fn date(&self) -> String {
        (self.begin + Duration::hours(self.east_of_utc)).date().to_string()
    }

    /// The `number`th minute from the end of what is told.
    fn minute(&self, number: i64) -> OffsetDateTime {
        self.told_to - Duration::minutes(number)
    }

    fn reference(&self, number: i64, nth: i64) -> uuid::Uuid {
        let day = self.minute(number).date();
        let since = u128::try_from((self.minute(number) - day.midnight().assume_utc()).whole_milliseconds()).unwrap();
        reference(&day.to_string(), (since << 80) + u128::try_from(number * 100 + nth).unwrap())
    }

    fn messages(&self, number: i64) -> Vec<Received> {
        let message = |nth| {
            created()
                .with_field("messageRef", self.reference(number, nth).to_string())
                .with_field("activityAt", text(self.minute(number) + Duration::seconds(7)))
        };
        (0..EACH).map(message).collect()
    }

    /// What the source tells, with the same in each of `written`.
    fn told(&self, world: &World, written: &[i64], end: usize) -> Vec<Value> {
        let written: Vec<_> = written.iter().map(|number| (self.minute(*number), EACH)).collect();
        minutes(world, self.begin, &written, &text(self.told_to), end)
    }

    fn difference(&self, number: i64, expected: i64, counted: i64) -> Value {
        let minute = text(self.minute(number));
        json!({"minute": minute, "activityTypeCode": CREATED, "expected": expected, "counted": counted})
    }
}

/// Waits until exactly these differences are named.
async fn are_named(service: &Service, day: &Day, mut expected: Vec<Value>) {
    expected.sort_by_key(Value::to_string);
    let begun = std::time::Instant::now();
    loop {
        let mut named = of_day(service, &day.date()).await["difference"].as_array().unwrap().clone();
        named.sort_by_key(Value::to_string);
        if named == expected {
            return;
        }
        assert!(begun.elapsed() < NAMED_WITHIN, "named {named:?}, expected {expected:?}");
        tokio::time::sleep(Limit::from_millis(100)).await;
    }
}

/// Messages that an operator has discarded so long after they were received.
async fn discarded(world: &World, messages: i64, ago: &str) {
    let insert = format!(
        r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, identity, received_at,
            state, resolved_at, resolved_by, resolution)
        SELECT gen_random_uuid(), 'another', 0, 0, 'x', 'unknown type', '', uuid_send(gen_random_uuid()),
            now() - interval '{ago}', 'discarded', now(), 'x', 'x'
        FROM generate_series(1, {messages})"#
    );
    world.database.execute(&insert).await;
}

async fn alert(service: &Service, name: &str, value: f64) {
    wait_until(&format!("{name} is {value}"), seconds(30), async || service.metrics().await.sum(name) == value).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_counted_twice_or_changed_by_hand_is_named_and_what_is_mended_is_not() {
    let (world, day) = (World::new(1).await, Day::now());
    progress_topic(&world).await;
    let setup = world.setup().set("statistics.time_zone", day.zone()).set("metrics.database_every", "100ms");
    let numbers = [1, 2, 3, 4, 5];
    let messages: Vec<_> = numbers.iter().flat_map(|number| day.messages(*number)).collect();
    world.produce(&messages).await;
    // Of now: counted, and in no minute that was told.
    let at = text(OffsetDateTime::now_utc());
    let now: Vec<_> = (0..3).map(|_| created().with_field("activityAt", at.clone())).collect();
    world.produce(&now).await;
    let service = setup.start().await;
    let written = EACH * 5;
    world.has_counted(written + 3, seconds(20)).await;
    for table in ["processed_messages", "daily_activity_shards"] {
        world.database.execute(&format!("CREATE TABLE {table}_before AS SELECT * FROM {table}")).await;
    }

    // A row deleted from the keys.
    let key = |number, nth| format!("message_ref = '{}'", day.reference(number, nth));
    world.database.execute(&format!("DELETE FROM processed_messages WHERE {}", key(1, 2))).await;
    // One counted twice.
    let again = format!(
        r#"INSERT INTO processed_messages (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset")
            SELECT '{}', undated, activity_type_code, activity_date, activity_at, topic, partition, "offset"
            FROM processed_messages WHERE {};
        UPDATE daily_activity_shards SET quantity = quantity + 1 WHERE activity_date = '{}'"#,
        day.reference(2, 50),
        key(2, 1),
        day.date()
    );
    world.database.execute(&again).await;
    // The tail of what was counted of a minute.
    let tail = format!(
        "DELETE FROM processed_messages WHERE activity_at >= '{0}' AND activity_at < '{1}';
        UPDATE daily_activity_shards SET quantity = quantity - {EACH} WHERE activity_date = '{2}'",
        text(day.minute(3)),
        text(day.minute(2)),
        day.date()
    );
    world.database.execute(&tail).await;
    tell(&world, &day.told(&world, &numbers, messages.len() + 3)).await;
    let named = [day.difference(1, 4, 3), day.difference(2, 4, 5), day.difference(3, 4, 0)];
    // The figure was not changed with the key of the first one.
    let figure = format!("SELECT sum(quantity)::bigint FROM daily_activities WHERE activity_date = '{}'", day.date());
    let counted = world.database.number(&figure).await;
    let of_day = |expected: i64, counted: i64| json!({"minute": null, "activityTypeCode": CREATED, "expected": expected, "counted": counted});
    are_named(&service, &day, [&named[..], &[of_day(counted - 1, counted)]].concat()).await;
    // What was discarded before those minutes began explains nothing of them.
    discarded(&world, 10, "3 days").await;
    alert(&service, "activity_differing_counts", 4.0).await;
    // What is explained in one minute is not in another: four are missing of the third, and one of the first.
    discarded(&world, 4, "0 days").await;
    alert(&service, "activity_differing_counts", 3.0).await;
    discarded(&world, 1, "0 days").await;
    alert(&service, "activity_differing_counts", 2.0).await;
    world.database.execute("DELETE FROM quarantine").await;
    alert(&service, "activity_differing_counts", 4.0).await;

    // The source has lost the tail of its database, and tells a minute again.
    let mut lost = day.told(&world, &numbers, messages.len() + 3);
    lost.retain(|one| one["counts"]["from"] == text(day.minute(4)));
    lost[0]["counts"]["quantities"] = json!({CREATED: 1});
    tell(&world, &lost).await;
    // A figure changed by hand.
    let by_hand =
        format!("UPDATE daily_activity_shards SET quantity = quantity + 2 WHERE activity_date = '{}'", day.date());
    world.database.execute(&by_hand).await;
    let named = [&named[..], &[day.difference(4, 1, 4)]].concat();
    are_named(&service, &day, [&named[..], &[of_day(counted - 1, counted + 2)]].concat()).await;
    alert(&service, "activity_differing_counts", 5.0).await;

    // Mended.
    for table in ["processed_messages", "daily_activity_shards"] {
        let back = format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {table}_before");
        world.database.execute(&back).await;
    }
    tell(&world, &day.told(&world, &numbers, messages.len() + 3)).await;
    are_named(&service, &day, Vec::new()).await;
    alert(&service, "activity_differing_counts", 0.0).await;

    // Messages removed from the topic before they were read.
    assert_eq!(service.stop().await, Some(0));
    world.produce(&day.messages(6)).await;
    world.topic().delete_before(0, written + 3 + 2).await;
    let service = setup.start().await;
    world.has_counted(written + 3 + 2, seconds(20)).await;
    tell(&world, &day.told(&world, &[1, 2, 3, 4, 5, 6], messages.len() + 3 + 4)).await;
    are_named(&service, &day, vec![day.difference(6, 4, 2)]).await;
    alert(&service, "activity_open_gaps", 1.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

/// Holds: A figure that somebody goes on changing is named, however many instances look at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_that_goes_on_growing_without_messages_is_named_and_stays_named() {
    let (world, day) = (World::new(1).await, Day::now());
    progress_topic(&world).await;
    let setup = world.setup().set("statistics.time_zone", day.zone()).set("metrics.database_every", "100ms");
    let (service, other) = (setup.start().await, setup.start().await);
    let messages = day.messages(1);
    world.produce(&messages).await;
    world.has_counted(EACH, seconds(20)).await;
    tell(&world, &day.told(&world, &[1], messages.len())).await;
    let growing = format!(
        "UPDATE daily_activity_shards SET quantity = quantity + 1
         WHERE (activity_date, shard) = ('{}', (SELECT min(shard) FROM daily_activity_shards))",
        day.date()
    );
    let pool = world.database.pool.clone();
    let grows = tokio::spawn(async move {
        loop {
            sqlx::query(&growing).execute(&pool).await.unwrap();
            tokio::time::sleep(Limit::from_millis(500)).await;
        }
    });
    let differing = async || service.metrics().await.sum("activity_differing_counts");
    wait_until("it is named", NAMED_WITHIN, async || differing().await == 1.0).await;
    // Longer than from one look to the next.
    for _ in 0..25 {
        tokio::time::sleep(seconds(1)).await;
        assert!(differing().await == 1.0, "it is not named any more");
    }
    grows.abort();
    assert_eq!((service.stop().await, other.stop().await), (Some(0), Some(0)));
    world.database.execute(&format!("UPDATE daily_activity_shards SET quantity = {EACH}")).await;
    world.judge().await;
}
